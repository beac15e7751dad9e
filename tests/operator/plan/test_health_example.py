"""Norms of the example model's answers to real text: no alarm of the same mix, one of shifts."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from examples.tiny.domains import DOMAINS
from moe_operator.health import Ailment, Attended, History, Sums, remember
from moe_operator.health_spec import HealthSpec
from tests.benchmarks.norms import EXPERTS, Norms, measured
from tests.operator.plan.test_plan_health import META

ROWS = 8  # of one session, in an attempt
SPEC = HealthSpec(max_norm_change_percent=25)
FEWEST = 20 * ROWS  # norms of one domain, to draw from


@pytest.fixture(scope="module")
def norms() -> Norms:
    return measured()


class Expert:
    """One expert under traffic of some kinds of text, in samples of 128 attempts."""

    def __init__(self, norms: Norms, expert: int) -> None:
        self.norms = {d: norms[d, expert] for d in DOMAINS if len(norms[d, expert]) >= FEWEST}
        self.of = Attended("v1", "a" * 64, SPEC, META)
        self.history, self.rng = History(), random.Random(expert)

    def serve(self, *domains: str) -> None:
        came = Sums()
        for domain in self.rng.choices(domains or tuple(self.norms), k=128):
            begin = self.rng.randrange(len(self.norms[domain]) - ROWS)
            came = came.plus(Sums(1, 0, ROWS, sum(self.norms[domain][begin : begin + ROWS])))
        self.history = remember(self.history, came, self.of)

    def settled(self, windows: int = 2) -> bool:
        """Serve all kinds of text; whether there was no alarm."""
        calm = True
        for _ in range(windows * SPEC.window_attempts // 128):
            self.serve()
            calm = calm and not self.history.alarms
        return calm

    def attempts_to_alarm(self, domain: str) -> int | None:
        """Return after how many attempts a shift to one kind is told, of a window and an eighth."""
        for sample in range(1, 9 * SPEC.window_attempts // 8 // 128 + 1):
            self.serve(domain)
            if Ailment.NORM_SHIFTED in self.history.alarms:
                return 128 * sample
        return None

    def shifts(self) -> Iterator[tuple[str, float]]:
        """Give how far the mean of each kind of text is from that of all of them alike."""
        means = {domain: sum(norms) / len(norms) for domain, norms in self.norms.items()}
        mixed = sum(means.values()) / len(means)
        for domain, mean in means.items():
            yield domain, abs(mean / mixed - 1)


def test_the_same_mix_gives_no_alarm(norms: Norms) -> None:
    assert all(Expert(norms, number).settled(windows=10) for number in EXPERTS)


def test_a_shift_is_told_within_a_window_where_it_changes_norms_by_more_than_the_limit(
    norms: Norms,
) -> None:
    told = 0
    for number in EXPERTS:
        for domain, change in Expert(norms, number).shifts():
            expert = Expert(norms, number)
            expert.settled()
            attempts = expert.attempts_to_alarm(domain)
            if change > 0.30:
                told += 1
                assert attempts is not None, (number, domain, change)
                assert attempts <= 9 * SPEC.window_attempts // 8
            elif change < 0.20:
                assert attempts is None, (number, domain, change)
    assert told >= 3
