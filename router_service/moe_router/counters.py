"""What a router counts, per version: sums since its start, of which a reader takes differences.

Only sums, no clock: times come with what is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from moe_core.metrics import Exemplar, Histogram
from moe_core.table import Rung
from moe_core.tracing import Span
from moe_router.cold import Version
from moe_router.colds import Colds, End
from moe_router.gate_tally import GateTallies
from moe_router.ladder import Cause
from moe_router.latency import LATENCY_BOUNDS_S, count_latency, no_latencies
from moe_router.message import Part
from moe_router.overflow import Load
from moe_router.refusal import Refused
from moeops.v1.link_pb2 import GroupResult


@dataclass(slots=True)
class ShadowTally:
    """Counters of copies that were sent to a version only to be counted."""

    requests: int = 0
    rows: int = 0
    errors: int = 0
    nonfinite_rows: int = 0
    norm_sum: float = 0.0


@dataclass(slots=True)
class VersionTally:
    """Counters of one version of one expert; times are the router's clock, None is never."""

    requests: int = 0
    rows: int = 0
    errors: Counter[Cause] = field(default_factory=Counter)
    nonfinite_rows: int = 0
    norm_sum: float = 0.0
    latency_counts: list[int] = field(default_factory=no_latencies)
    latency_s: float = 0.0
    last_sent_s: float | None = None
    last_used_s: float | None = None
    shadow: ShadowTally = field(default_factory=ShadowTally)
    session_pairs: int = 0
    overflow_pairs: int = 0
    overflow_sessions: int = 0
    waiting_rows: int = 0  # now, for somebody to hold it

    def attempt(self, latency_s: float) -> None:
        self.requests += 1
        self.latency_s += latency_s
        count_latency(self.latency_counts, latency_s)


class Stage(StrEnum):
    """Parts of a request's time: until the experts are chosen, until all answered, the rest."""

    GATE = "gate"
    WORKERS = "workers"
    COMBINE = "combine"


class Counters:
    """All counters of a router. `failures` are by the name of the code, `errors` of attempts."""

    def __init__(self, cold_rows: int = 4096) -> None:
        """`cold_rows` are how many rows may wait at once for experts that nobody holds."""
        self.requests = 0
        self.failed_requests = 0
        self.failures: Counter[str] = Counter()
        self.errors: Counter[Cause] = Counter()
        self.stages = {stage: Histogram(LATENCY_BOUNDS_S) for stage in Stage}
        self.answers = Histogram(LATENCY_BOUNDS_S)
        self.rungs: Counter[tuple[Rung, str]] = Counter()
        self.gates = GateTallies()
        self.colds = Colds(cold_rows)
        self._versions: dict[tuple[str, str], VersionTally] = {}

    def of(self, expert_id: str, sha256: str) -> VersionTally:
        """Return the counters of a version; those of one that was never asked are zero."""
        return self._versions.get((expert_id, sha256)) or VersionTally()

    def versions(
        self, only: Collection[str] = ()
    ) -> Iterator[tuple[tuple[str, str], VersionTally]]:
        """Give ((expert id, sha256), counters), of these artifacts or of all."""
        for key, tally in self._versions.items():
            if not only or key[1] in only:
                yield key, tally

    def timed(self, began_s: float, chosen_s: float, answered_s: float, ended_s: float) -> None:
        """Count when the stages of an answered request ended."""
        stages = self.stages
        stages[Stage.GATE].observe(chosen_s - began_s)
        stages[Stage.WORKERS].observe(answered_s - chosen_s)
        stages[Stage.COMBINE].observe(ended_s - answered_s)
        self.answers.observe(ended_s - began_s)

    def traced(self, times_s: tuple[float, float, float, float], span: Span) -> None:
        """Keep an answered request that is traced as an example of what was counted."""
        began_s, chosen_s, answered_s, ended_s = times_s
        at_s, ids = span.since_1970_s(ended_s), span.context.ids
        for seen, took_s in (
            (self.stages[Stage.GATE], chosen_s - began_s),
            (self.stages[Stage.WORKERS], answered_s - chosen_s),
            (self.stages[Stage.COMBINE], ended_s - answered_s),
            (self.answers, ended_s - began_s),
        ):
            seen.mark(Exemplar(took_s, ids, at_s))

    def refused(self, code: str) -> None:
        """Count a request that got no answer."""
        self.failed_requests += 1
        self.failures[code] += 1

    def sent(self, expert_id: str, sha256: str, now_s: float) -> None:
        self._of(expert_id, sha256).last_sent_s = now_s

    def answered(
        self, part: Part, result: GroupResult, latency_s: float, now_s: float, *, used: bool
    ) -> None:
        """Count an answer; one with rows that are not finite is no usable answer."""
        tally = self._of(part.ask.expert_id, part.ask.sha256)
        tally.attempt(latency_s)
        tally.rows += len(part.pairs)
        tally.norm_sum += result.norm_sum
        tally.nonfinite_rows += result.nonfinite_rows
        if result.nonfinite_rows:
            self._error(tally, Cause.NON_FINITE)
        if used:
            tally.last_used_s = now_s

    def failed(self, part: Part, cause: Cause, latency_s: float) -> None:
        """Count an attempt without an answer."""
        tally = self._of(part.ask.expert_id, part.ask.sha256)
        tally.attempt(latency_s)
        self._error(tally, cause)

    def missed(self, expert_id: str, sha256: str, now_s: float) -> None:
        """Count rows for a version that no worker could be asked for; that took no time."""
        self.colds.lack((expert_id, sha256), now_s)
        tally = self._of(expert_id, sha256)
        tally.requests += 1
        self._error(tally, Cause.UNREACHABLE)

    def waits(self, version: Version, rows: int, now_s: float) -> Refused | None:
        """Have rows wait for a version that nobody holds, or say why they may not."""
        self.colds.lack(version, now_s)
        refused = self.colds.enter(version, rows, now_s)
        if refused is None:
            self._of(*version).waiting_rows += rows
        return refused

    def waited(self, version: Version, rows: int, end: End, waited_s: float) -> None:
        self.colds.leave(rows, end, waited_s)
        self._of(*version).waiting_rows -= rows

    def shadowed(self, part: Part, result: GroupResult | None) -> None:
        """Count a copy that was sent to a candidate; None is no answer."""
        tally = self._of(part.ask.expert_id, part.ask.sha256).shadow
        tally.requests += 1
        if result is None:
            tally.errors += 1
            return
        tally.rows += len(part.pairs)
        tally.nonfinite_rows += result.nonfinite_rows
        tally.norm_sum += result.norm_sum

    def loaded(self, load: Load) -> None:
        """Count what a session on a version sent to the experts of a layer."""
        name, sha256 = load.of.name, load.of.sha256
        tally = self.gates.of(name, sha256) if load.of.gate else self._of(name, sha256)
        tally.session_pairs += load.pairs
        tally.overflow_pairs += load.overflowing
        tally.overflow_sessions += load.begins

    def _error(self, tally: VersionTally, cause: Cause) -> None:
        tally.errors[cause] += 1
        self.errors[cause] += 1

    def _of(self, expert_id: str, sha256: str) -> VersionTally:
        key = expert_id, sha256
        tally = self._versions.get(key)
        if tally is None:  # one is not made to be thrown away: this is on the way of every row
            tally = self._versions[key] = VersionTally()
        return tally
