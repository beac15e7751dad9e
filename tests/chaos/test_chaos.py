"""Real router, real workers, steady load, and one fault after another: nothing fails, no bit is
wrong. How long things take is printed by `python -m tests.benchmarks.chaos` and asserted nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter

import pytest

from tests.chaos.acts import ACTS, WIRED, Act
from tests.chaos.house import Workers, house, two_workers
from tests.chaos.wire import missing, wire


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with two_workers(tmp_path_factory.mktemp("chaos")) as held:
        yield held


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    if why := missing():
        pytest.skip(why)
    with wire() as made, two_workers(tmp_path_factory.mktemp("wired"), made) as held:
        yield held


@pytest.mark.parametrize("act", ACTS, ids=attrgetter("name"))
def test_no_request_fails_and_no_answer_is_wrong(both: Workers, act: Act) -> None:
    _play(both, act)


@pytest.mark.parametrize("act", WIRED, ids=attrgetter("name"))
def test_nor_where_the_network_is_at_fault(wired: Workers, act: Act) -> None:
    _play(wired, act)


def _play(held: Workers, act: Act) -> None:
    with house(held) as it:
        act.strike(it)
        it.ask(60)
        act.end(it)
        it.ask(60)
        it.load.stop()

        report = it.load.report()
        assert report.failures == {}
        assert it.failed_requests() == 0, f"a client had to ask again: {it.refusals()}"
        wrong = [r for r in it.load.records() if r.different and r.degraded_ppm == 0]
        assert wrong == []


def test_the_last_act_is_the_one_that_ends_the_worker() -> None:
    assert [act.final for act in ACTS] == [False] * (len(ACTS) - 1) + [True]
