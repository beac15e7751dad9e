"""A gate in the terms in which an expert is tried out, and back again.

Its variants are versions, and routers that have loaded one are what pods are to an expert. So one
set of rules, in `rollout`, decides for both. Decides nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace

from moe_core.document import InvalidDocument, Reader
from moe_core.rollout import Version
from moe_core.rows import ExpertRow, GateRow, GateVariant, Role
from moe_operator.case import Case
from moe_operator.reach import Reach
from moe_operator.reason import Reason, Why
from moe_operator.router_report import Loading
from moe_operator.spec import ExpertSpec, GateSpec, MixtureSpec, Tried
from moe_operator.world import Revision, Snapshot


def as_expert(gate: GateSpec, mixture: MixtureSpec) -> ExpertSpec:
    """Return a gate as what is tried out; there is one of it, in every router."""
    return ExpertSpec(
        meta=gate.meta,
        mixture=gate.mixture,
        expert_id=f"gate {gate.meta.name}",
        role=Role.ROUTED,
        layers=gate.layers or tuple(range(mixture.layers)),
        version=gate.version,
        rollout=gate.rollout,
        evaluation=gate.evaluation,
        history_limit=gate.history_limit,
        kind=Tried.GATE,
    )


def as_row(gate: GateSpec, mixture: MixtureSpec, row: GateRow | None) -> ExpertRow:
    """Return a gate's row without what its variants know; one that is new has no stable version."""
    expert = as_expert(gate, mixture)
    blank = ExpertRow(gate.meta.name, expert.expert_id, expert.role, expert.layers)
    if row is None:
        return blank
    return replace(
        blank,
        layers=row.layers,
        stable=plain(row.stable),
        candidate=plain(row.candidate) if row.candidate else None,
        previous=plain(row.previous) if row.previous else None,
        revoked=row.revoked,
        rollout=row.rollout,
    )


def as_gate(moved: ExpertRow, variants: Mapping[str, GateVariant]) -> GateRow:
    """Return the row of a gate that has a stable version, with its variants, by sha256."""
    assert moved.stable is not None  # one without is not in the table

    def variant(version: Version | None) -> GateVariant | None:
        if version is None:
            return None
        return replace(variants[version.sha256], version=version.version, uri=version.uri)

    stable = variant(moved.stable)
    assert stable is not None
    return GateRow(
        name=moved.name,
        layers=moved.layers,
        stable=stable,
        candidate=variant(moved.candidate),
        previous=variant(moved.previous),
        revoked=moved.revoked,
        rollout=moved.rollout,
    )


def known_variants(
    gate: GateSpec,
    row: GateRow | None,
    revisions: Iterable[Revision],
    snapshots: Iterable[Snapshot],
) -> dict[str, GateVariant]:
    """Return every variant of a gate that can be served, by sha256.

    Which versions of experts a variant accepts may change without a new version: what the spec
    says of its own counts, of others what the table says, else the newest epoch that is kept and
    served it (`snapshots` are in order of epochs), else what its revision began with.
    """
    known: dict[str, GateVariant] = {}
    for revision in revisions:
        try:
            variant = GateVariant.read(Reader(dict(revision.template), revision.name))
        except InvalidDocument:
            continue  # a broken old revision blocks nothing
        known[variant.sha256] = variant
    served = (snapshot.gate(gate.meta.name) for snapshot in snapshots)
    known |= {kept.stable.sha256: kept.stable for kept in served if kept is not None}
    known |= {variant.sha256: variant for variant in (row.named if row else ())}
    return known | {gate.version.sha256: gate.variant}


def plain(variant: GateVariant) -> Version:
    """Return what is tried out of a variant: its name and its artifact."""
    return Version(variant.version, variant.sha256, variant.uri)


@dataclass(frozen=True, slots=True)
class GateReach(Reach):
    """What routers have of a gate: those that loaded a variant are as workers that serve it."""

    named: frozenset[str] = frozenset()  # what the stored table names, so that routers load it

    @classmethod
    def over(cls, reach: Reach, named: Iterable[str]) -> GateReach:
        known = {each.name: getattr(reach, each.name) for each in fields(reach)}
        return cls(**known, named=frozenset(named))

    def workers(self, sha256: str) -> int:
        """Return how many ready routers have loaded a variant; all of one that is not named yet."""
        if sha256 not in self.named:
            return len(self.ready)
        return sum(self._loaded(pod, sha256) for pod in self.ready)

    def lost(self, sha256: str) -> bool:
        """A gate is in the routers themselves."""
        return False

    def _loaded(self, pod: str, sha256: str) -> bool:
        report = self.reports.get(pod)
        loading = None if report is None else report.gates.get(sha256)
        return loading is not None and loading.state is Loading.LOADED

    def trouble(self, sha256: str) -> str:
        """Return why a router has not loaded a variant, as one of them said it."""
        said = (self.reports[pod].gates.get(sha256) for pod in self.ready if pod in self.reports)
        return next((loading.message for loading in said if loading and loading.message), "")


@dataclass(frozen=True, slots=True)
class GateCase(Case):
    """What the next step of a gate depends on; all routers are to have what sessions may see."""

    def room(self, percent: int) -> int:
        return max(1, len(self.reach.ready))

    def waits_for_pods(self, sha256: str, otherwise: str) -> Why:
        reach = self.reach
        if not reach.ready or not isinstance(reach, GateReach):
            return Why(Reason.WAITING_FOR_ROUTERS, "no router is ready yet")
        loaded, trouble = reach.workers(sha256), reach.trouble(sha256)
        said = f"{loaded} of {len(reach.ready)} routers have loaded {self.wanted.version}"
        return Why(Reason.WAITING_FOR_ROUTERS, f"{said}: {trouble}" if trouble else said)
