"""What a router says of itself: the mixture to clients, counters and links to the operator."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from moe_core import dtypes
from moe_core.table import Rung
from moe_router import gates
from moe_router.counters import Counters, VersionTally
from moe_router.describe_gates import describe_gate, gate_counters, gate_shadows
from moe_router.gates import GateArtifacts, Standing
from moe_router.latency import LATENCY_BOUNDS_US
from moe_router.link import Link, State
from moe_router.links import Links
from moe_router.outcomes import Arm, Measure, Outcomes, Sums
from moe_router.refusal import Code, Refused
from moe_router.scorings import Scorings
from moe_router.tables import Source, Tables
from moe_router.view import View
from moeops.v1 import router_pb2
from moeops.v1.router_pb2 import GateState, LinkState, OutcomeSums, VersionCounters

WIRE_RUNGS = {
    Rung.REPLICA: router_pb2.RUNG_REPLICA,
    Rung.STABLE: router_pb2.RUNG_STABLE,
    Rung.BACKUP: router_pb2.RUNG_BACKUP,
    Rung.DENSE: router_pb2.RUNG_DENSE,
    Rung.RENORMALISE: router_pb2.RUNG_RENORMALISE,
    Rung.RESIDUAL: router_pb2.RUNG_RESIDUAL,
}
_WIRE_MEASURES = {Measure.LOSS: OutcomeSums.LOSS, Measure.SCORE: OutcomeSums.SCORE}
_WIRE_GATES = {
    gates.State.FETCHING: GateState.FETCHING,
    gates.State.LOADED: GateState.LOADED,
    gates.State.REFUSED: GateState.REFUSED,
}
_WIRE_STATES = {
    State.CONNECTING: LinkState.CONNECTING,
    State.LIVE: LinkState.LIVE,
    State.SILENT: LinkState.SILENT,
    State.DRAINING: LinkState.DRAINING,
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this router is; `incarnation` is new with each start."""

    name: str
    node: str
    incarnation: str
    mixture: str


class Describer:
    """Puts a router's state into a DescribeResponse."""

    def __init__(
        self,
        identity: Identity,
        tables: Tables,
        links: Links,
        counters: Counters,
        outcomes: Outcomes,
        gates: GateArtifacts,
        scorings: Scorings,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._identity, self._tables, self._links = identity, tables, links
        self._counters, self._outcomes = counters, outcomes
        self._gates, self._scorings = gates, scorings
        self._clock, self._wall = clock, wall

    def describe(self, request: router_pb2.DescribeRequest) -> router_pb2.DescribeResponse:
        """Return epoch, links and counters, in detail for the artifacts asked for or for all."""
        view, counters = self._tables.view, self._counters
        offset_s = self._wall() - self._clock()
        only = frozenset(request.sha256)
        return router_pb2.DescribeResponse(
            router=self._identity.name,
            incarnation=self._identity.incarnation,
            node=self._identity.node,
            mixture=self._identity.mixture,
            table_uid=view.table.uid if view else "",
            epoch=view.table.epoch if view else 0,
            table_age_s=int(self._tables.age_s) if view else 0,
            table_kept=self._tables.source is Source.KEPT,
            links=[_link(link) for link in self._links.all],
            versions=[_version(key, tally, offset_s) for key, tally in counters.versions(only)],
            rungs=[
                router_pb2.RungRows(rung=WIRE_RUNGS[rung], expert_id=expert_id, rows=rows)
                for (rung, expert_id), rows in sorted(counters.rungs.items())
            ],
            requests=counters.requests,
            failed_requests=counters.failed_requests,
            latency_bounds_us=LATENCY_BOUNDS_US,
            outcomes=[_sums(*one) for one in self._outcomes.sums(view)] if view else [],
            gates=[_state(standing) for standing in self._gates.standings()],
            gate_counters=gate_counters(view, counters.gates, only, grouped=request.session_groups)
            if view
            else [],
            gate_shadows=gate_shadows(self._scorings, only),
        )


def describe_mixture(
    request: router_pb2.DescribeMixtureRequest, view: View
) -> router_pb2.DescribeMixtureResponse:
    """Return what a client needs to attach. Raises Refused."""
    table = view.table
    if request.mixture not in ("", table.mixture):
        text = f"mixture is {request.mixture!r}; this router serves {table.mixture!r}"
        raise Refused(Code.NOT_FOUND, text)
    return router_pb2.DescribeMixtureResponse(
        mixture=table.mixture,
        table_uid=table.uid,
        epoch=table.epoch,
        hidden_size=table.hidden_size,
        layers=table.layers,
        dtype=dtypes.by_name(table.dtype).wire,
        trunk_sha256=table.trunk_sha256,
        gates=[describe_gate(gate) for gate in table.gates],
    )


def _link(link: Link) -> LinkState:
    inventory = link.inventory
    return LinkState(
        address=link.address,
        worker=inventory.worker,
        node=inventory.node,
        incarnation=inventory.incarnation,
        state=_WIRE_STATES[link.state],
        fingerprint=inventory.fingerprint,
        sha256=sorted(_offered(link)),
        rows=link.rows,
        queued_rows=link.heartbeat.queued_rows,
        busy_us=link.heartbeat.busy_us,
        computed_rows=link.heartbeat.rows,
        queued_attempts=link.heartbeat.queued_attempts,
        queue_us=link.heartbeat.queue_us,
    )


def _sums(arm: Arm, measure: Measure, sums: Sums) -> OutcomeSums:
    return OutcomeSums(
        expert_id=arm.expert_id,
        gate=arm.gate,
        sha256=arm.sha256,
        since_epoch=arm.since_epoch,
        measure=_WIRE_MEASURES[measure],
        sessions=sums.sessions,
        w=sums.w,
        x=sums.x,
        ww=sums.ww,
        xx=sums.xx,
        wx=sums.wx,
    )


def _state(standing: Standing) -> router_pb2.GateState:
    return router_pb2.GateState(
        gate=standing.gate,
        sha256=standing.sha256,
        state=_WIRE_GATES[standing.state],
        message=standing.message,
    )


def _offered(link: Link) -> Iterable[str]:
    """Return what a worker offers; a silent one, perhaps only starved for a moment, offered it."""
    if link.state is State.SILENT:
        return (servable.sha256 for servable in link.inventory.servable)
    return link.offer.layers


def _version(key: tuple[str, str], tally: VersionTally, offset_s: float) -> VersionCounters:
    def wall_ms(moment_s: float | None) -> int:
        return 0 if moment_s is None else int((moment_s + offset_s) * 1000)

    return VersionCounters(
        expert_id=key[0],
        sha256=key[1],
        requests=tally.requests,
        rows=tally.rows,
        errors={cause.value: count for cause, count in tally.errors.items()},
        nonfinite_rows=tally.nonfinite_rows,
        norm_sum=tally.norm_sum,
        latency_counts=tally.latency_counts,
        last_sent_ms=wall_ms(tally.last_sent_s),
        last_used_ms=wall_ms(tally.last_used_s),
        shadow_requests=tally.shadow.requests,
        shadow_rows=tally.shadow.rows,
        shadow_errors=tally.shadow.errors,
        shadow_nonfinite_rows=tally.shadow.nonfinite_rows,
        shadow_norm_sum=tally.shadow.norm_sum,
        session_pairs=tally.session_pairs,
        overflow_pairs=tally.overflow_pairs,
        overflow_sessions=tally.overflow_sessions,
        waiting_rows=tally.waiting_rows,
    )
