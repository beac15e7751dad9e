"""The example model under text that really shifts: no alarm of the same mix, one of each shift.

Counts of rows with fixed seeds; `python -m tests.benchmarks.drift` prints the whole table.
"""

from __future__ import annotations

import pytest

from examples.tiny.domains import DOMAINS
from moe_operator.drift_spec import DriftSpec
from tests.operator.drift.example import EVEN, Chosen, Stage, shifted

WINDOW = DriftSpec({}).window_rows


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage.of(Chosen.live(), DriftSpec({}))


def test_the_same_mix_gives_no_alarm(stage: Stage) -> None:
    assert sum(stage.alarms(EVEN, seed, windows=10) for seed in range(4)) == 0
    assert stage.psi(EVEN, 1, stage.settled()) < 0.05


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_shift_to_one_kind_of_text_is_told_within_a_window(stage: Stage, domain: str) -> None:
    rows = stage.rows_to_alarm(shifted(domain, 1.0), seed=1, most=stage.settled())
    assert rows is not None
    assert rows <= WINDOW
    assert stage.psi(shifted(domain, 1.0), 1, stage.settled()) > 2


def test_a_smaller_shift_is_told_later_and_one_within_the_limit_not_at_all(stage: Stage) -> None:
    large, most = stage.rows_to_alarm(shifted("code", 1.0), 1, stage.settled()), stage.settled()
    smaller = stage.rows_to_alarm(shifted("code", 0.7), 1, 2 * most)
    assert large is not None
    assert smaller is not None
    assert large < smaller <= 2 * WINDOW
    assert stage.rows_to_alarm(shifted("code", 0.3), 1, 2 * most) is None
