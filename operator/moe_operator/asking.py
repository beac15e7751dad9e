"""Asks a router or a worker to describe itself over gRPC, and reads the answer.

Translation only. Channels are kept for as long as somebody asks there.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import grpc

from moe_core.grpc_tls import channel_credentials
from moe_core.tls import Material
from moe_core.worker_load import WorkerLoad
from moe_operator.drift import Tallies, Tally
from moe_operator.drift_spec import Place
from moe_operator.reports import Unanswered
from moe_operator.router_report import (
    Counters,
    GateLoading,
    LayerShadow,
    Loading,
    Measure,
    OutcomeSum,
    RouterReport,
    Shadow,
)
from moe_operator.sequential import Arm
from moe_operator.tls import parsed
from moe_operator.world import WorkerReport
from moeops.v1 import router_pb2, router_pb2_grpc, worker_pb2, worker_pb2_grpc

_TIMEOUT_S: Final = 1.0
# No artifact has this name: no router then sends the counters that nobody asked for.
_NO_DIGEST: Final = ("none",)
# Links over which heartbeats come.
_SPEAKING: Final = (router_pb2.LinkState.LIVE, router_pb2.LinkState.DRAINING)
_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.enable_http_proxy", 0),
)


class GrpcAsker:
    """An `Asker` over gRPC, one channel for each address.

    `own` is the operator's certificate as it is now; a channel of an older one is left for a new
    one. Without one nothing that has TLS is asked.
    """

    def __init__(self, own: Callable[[], Material | None] = lambda: None) -> None:
        self._own = own
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._used: Material | None = None

    async def router(
        self, address: str, digests: tuple[str, ...], watched: tuple[str, ...]
    ) -> RouterReport:
        stub = router_pb2_grpc.RouterStub(await self._channel(address))
        asked = tuple(dict.fromkeys((*digests, *watched))) or _NO_DIGEST
        request = router_pb2.DescribeRequest(sha256=asked, session_groups=bool(watched))
        try:
            said = await stub.Describe(request, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise Unanswered(f"{address}: {error.code().name}: {error.details()}") from None
        return router_report(said, digests, watched)

    async def worker(self, address: str) -> tuple[WorkerReport, ...]:
        stub = worker_pb2_grpc.WorkerStub(await self._channel(address))
        request = worker_pb2.DescribeWorkerRequest()
        try:
            said = await stub.Describe(request, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise Unanswered(f"{address}: {error.code().name}: {error.details()}") from None
        return worker_reports(said)

    async def forget(self, addresses: frozenset[str]) -> None:
        for address in [a for a in self._channels if a not in addresses]:
            await self._channels.pop(address).close()

    async def _channel(self, address: str) -> grpc.aio.Channel:
        """Return the channel to an address. Raises Unanswered where it takes a certificate."""
        own, (name, place) = self._own(), parsed(address)
        if own is not self._used:
            self._used = own
            await self.forget(frozenset(a for a in self._channels if not parsed(a)[0]))
        if address not in self._channels:
            self._channels[address] = _connect(place, name, own)
        return self._channels[address]


def _connect(place: str, name: str, own: Material | None) -> grpc.aio.Channel:
    if not name:
        return grpc.aio.insecure_channel(place, options=_OPTIONS)
    if own is None:
        raise Unanswered(f"{place}: it asks for a certificate, and this operator has none")
    options = (*_OPTIONS, ("grpc.ssl_target_name_override", name))
    return grpc.aio.secure_channel(place, channel_credentials(own), options=options)


def router_report(
    said: router_pb2.DescribeResponse, digests: tuple[str, ...], watched: tuple[str, ...] = ()
) -> RouterReport:
    """Return what a router said; pod and time are for the caller to fill in.

    `digests` are versions under rollout, `watched` stable ones of gates whose routing is looked at,
    and of experts whose health is.
    """
    offers: dict[str, set[str]] = {}
    silent: set[str] = set()
    for link in said.links:
        if link.state == router_pb2.LinkState.SILENT:
            silent.update(link.sha256)
        elif link.state == router_pb2.LinkState.LIVE:
            for sha256 in link.sha256:
                offers.setdefault(sha256, set()).add(link.worker)
    return RouterReport(
        pod=said.router,
        incarnation=said.incarnation,
        at=datetime.fromtimestamp(0, UTC),
        table_uid=said.table_uid,
        epoch=said.epoch,
        kept=said.table_kept,
        latency_bounds_us=tuple(said.latency_bounds_us),
        workers={sha256: tuple(sorted(names)) for sha256, names in offers.items()},
        versions=_versions(said, frozenset(digests)),
        silent=frozenset(silent),
        outcomes=tuple(_outcome(sums) for sums in said.outcomes if sums.sha256 in digests),
        gates={gate.sha256: _loading(gate) for gate in said.gates},
        shadows=tuple(_shadow(shadow) for shadow in said.gate_shadows),
        loads={link.worker: _load(link) for link in said.links if link.state in _SPEAKING},
        tallies={g.sha256: _tallies(g) for g in said.gate_counters if g.sha256 in watched},
        attended=_versions(said, frozenset(watched)),
    )


def _tallies(gate: router_pb2.GateCounters) -> Tallies:
    found: dict[Place, Tally] = {}
    for layer in gate.layers:
        pairs = array("q", layer.group_pairs)
        found[layer.layer, ""] = Tally(layer.rows, pairs, layer.overflow_pairs)
        for one in layer.contexts:
            found[layer.layer, one.context] = Tally(one.rows, array("q", one.group_pairs))
    return found


def _load(link: router_pb2.LinkState) -> WorkerLoad:
    return WorkerLoad(
        incarnation=link.incarnation,
        queued_rows=link.queued_rows,
        busy_us=link.busy_us,
        rows=link.computed_rows,
        queued_attempts=link.queued_attempts,
        queue_us=link.queue_us,
    )


def _outcome(said: router_pb2.OutcomeSums) -> OutcomeSum:
    """Return one sum; what is neither a loss nor a score is not told by any router."""
    loss = said.measure == router_pb2.OutcomeSums.LOSS
    arm = Arm(said.sessions, said.w, said.x, said.ww, said.xx, said.wx)
    measure = Measure.LOSS if loss else Measure.SCORE
    return OutcomeSum(said.expert_id, said.sha256, said.since_epoch, measure, arm, said.gate)


def _versions(said: router_pb2.DescribeResponse, digests: frozenset[str]) -> dict[str, Counters]:
    """Return the counters of each of these versions; zeros where it was never used.

    What several experts use is added up.
    """
    found = dict.fromkeys(digests, Counters())
    for version in said.versions:
        if version.sha256 in digests:
            found[version.sha256] = _plus(found[version.sha256], version)
    for gate in said.gate_counters:
        if gate.sha256 in digests:
            found[gate.sha256] = _of_gate(gate)
    return found


def _of_gate(gate: router_pb2.GateCounters) -> Counters:
    """Return whole requests of sessions on a gate's version, as if they were attempts."""
    return Counters(
        requests=gate.requests,
        rows=sum(layer.rows for layer in gate.layers),
        errors=gate.failed_requests,
        latency_counts=tuple(gate.latency_counts),
        session_pairs=gate.session_pairs,
        overflow_pairs=gate.overflow_pairs,
        overflow_sessions=gate.overflow_sessions,
        mass=gate.mass,
        lost_mass=gate.lost_mass,
    )


def _loading(gate: router_pb2.GateState) -> GateLoading:
    states = {
        router_pb2.GateState.LOADED: Loading.LOADED,
        router_pb2.GateState.REFUSED: Loading.REFUSED,
    }
    return GateLoading(states.get(gate.state, Loading.FETCHING), gate.message)


def _shadow(said: router_pb2.GateShadow) -> Shadow:
    layers = tuple(
        LayerShadow(
            layer=layer.layer,
            rows=layer.rows,
            overlap=layer.overlap_sum,
            divergence=layer.divergence_sum,
            entropy=layer.entropy_sum,
            base_entropy=layer.base_entropy_sum,
            pairs=tuple(layer.pairs),
            base_pairs=tuple(layer.base_pairs),
            overflow_pairs=layer.overflow_pairs,
            base_overflow_pairs=layer.base_overflow_pairs,
        )
        for layer in said.layers
    )
    return Shadow(said.sha256, said.base_sha256, layers)


def _plus(known: Counters, version: router_pb2.VersionCounters) -> Counters:
    counts = tuple(version.latency_counts)
    before = known.latency_counts or (0,) * len(counts)
    return Counters(
        requests=known.requests + version.requests,
        rows=known.rows + version.rows,
        errors=known.errors + sum(version.errors.values()),
        nonfinite_rows=known.nonfinite_rows + version.nonfinite_rows,
        norm_sum=known.norm_sum + version.norm_sum,
        latency_counts=tuple(a + b for a, b in zip(before, counts, strict=True)),
        shadow_requests=known.shadow_requests + version.shadow_requests,
        shadow_rows=known.shadow_rows + version.shadow_rows,
        shadow_errors=known.shadow_errors + version.shadow_errors,
        shadow_nonfinite_rows=known.shadow_nonfinite_rows + version.shadow_nonfinite_rows,
        shadow_norm_sum=known.shadow_norm_sum + version.shadow_norm_sum,
        session_pairs=known.session_pairs + version.session_pairs,
        overflow_pairs=known.overflow_pairs + version.overflow_pairs,
        overflow_sessions=known.overflow_sessions + version.overflow_sessions,
        waiting_rows=known.waiting_rows + version.waiting_rows,
    )


def worker_reports(said: worker_pb2.DescribeWorkerResponse) -> tuple[WorkerReport, ...]:
    """Return how far a worker is with each of its artifacts; the pod is for the caller."""
    return tuple(
        WorkerReport(
            pod="",
            sha256=state.expert.sha256,
            phase=worker_pb2.AssignedState.Phase.Name(state.phase).capitalize(),
            message=state.failure.message,
        )
        for state in said.assigned
    )
