"""How what is assigned comes to be served, and leaves again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from moe_artifacts.errors import Unavailable, WrongDigest
from moe_core.dtypes import BFLOAT16, FLOAT32
from moe_worker.assignment import Assigned, Assignment
from moe_worker.expert import Fit, Rules
from moe_worker.inventory import Identity, assigned_state, make_inventory, ready
from moe_worker.loader import Loader, State, after, next_due
from moe_worker.phases import TRANSITIONS, Event, Phase
from moe_worker.shelf import Shelf
from moeops.v1.types_pb2 import Failure
from moeops.v1.worker_pb2 import AssignedState
from tests.fakes.source import FakeSource
from tests.support.artifacts import WrittenExpert, write_expert

HIDDEN = 16
TIMEOUT_S = 20.0


def test_the_table_of_phases_is_complete() -> None:
    assert set(TRANSITIONS) == set(Phase)
    named = set(AssignedState.Phase.values()) - {AssignedState.PHASE_UNSPECIFIED}
    assert {phase.value for phase in Phase} == named
    for phase, events in TRANSITIONS.items():
        ends = phase in (Phase.SERVING, Phase.REFUSED)
        assert (Event.REFUSED in events) != ends
        assert (Event.UNAVAILABLE in events) != ends


def test_every_phase_can_be_reached_from_the_first() -> None:
    reached = {Phase.FETCHING}
    for _ in Phase:
        reached |= {to for phase in reached for to in TRANSITIONS[phase].values()}
    assert reached == set(Phase)


def test_what_is_unavailable_waits_longer_each_time_within_bounds() -> None:
    state, waits = State(), []
    for _ in range(10):
        state = after(state, Event.UNAVAILABLE, Failure(code=14), now=100.0)
        assert state.phase is Phase.FETCHING
        waits.append(state.retry_at - 100.0)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]


def named(name: str) -> Assigned:
    return Assigned(name, "v1", "file:///x", name * 64)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        pytest.param({}, (None, 3600), id="nothing assigned"),
        pytest.param({"a": State(), "b": State()}, ("a", 0), id="in order"),
        pytest.param({"a": State(Phase.SERVING), "b": State()}, ("b", 0), id="served is done"),
        pytest.param({"a": State(Phase.REFUSED)}, (None, 3600), id="refused is done"),
        pytest.param(
            {"a": State(retry_at=15), "b": State(retry_at=12)}, (None, 2), id="waits for the next"
        ),
        pytest.param(
            {"a": State(retry_at=15), "b": State()}, ("b", 0), id="one in trouble stops no other"
        ),
    ],
)
def test_next_due(states: dict[str, State], expected: tuple[str | None, float]) -> None:
    due, wait_s = next_due({named(name): state for name, state in states.items()}, now=10)
    assert (due.expert_id if due else None, wait_s) == expected


class Bench:
    """A loader on a thread of its own, with a fake source."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.source = FakeSource()
        self.shelf = Shelf()
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.changes = 0
        self._change = threading.Condition()
        self.time_s = 0.0
        self.rules = rules or Rules(BFLOAT16, exact=True)
        self.loader = Loader(
            self.source,
            self.shelf,
            Fit(HIDDEN, BFLOAT16),
            self.rules,
            changed=self._changed,
            log=self._log,
            clock=lambda: self.time_s,
        )
        self.thread = threading.Thread(target=self.loader.run, daemon=True)
        self.thread.start()

    def _log(self, event: str, **fields: Any) -> None:
        with self._change:
            self.lines.append((event, fields))
            self._change.notify_all()

    def _changed(self) -> None:
        with self._change:
            self.changes += 1
            self._change.notify_all()

    def holds(self, artifact: WrittenExpert) -> Assigned:
        self.source.files[artifact.sha256] = artifact.path
        return Assigned("e0", "v1", artifact.uri, artifact.sha256)

    def phase(self, assigned: Assigned) -> Phase | None:
        return next((s.phase for a, s in self.loader.states() if a == assigned), None)

    def wait_for(self, assigned: Assigned, phase: Phase) -> State:
        with self._change:
            assert self._change.wait_for(lambda: self.phase(assigned) is phase, TIMEOUT_S)
        return next(s for a, s in self.loader.states() if a == assigned)

    def wait_for_line(self, event: str, times: int = 1) -> dict[str, Any]:
        def seen() -> list[dict[str, Any]]:
            return [fields for name, fields in self.lines if name == event]

        with self._change:
            assert self._change.wait_for(lambda: len(seen()) >= times, TIMEOUT_S), self.lines
        return seen()[times - 1]

    def move_on(self, seconds: float, assignment: Assignment) -> None:
        """Move the clock, and wake the loader by an assignment that differs by nothing."""
        self.time_s += seconds
        extra = Assigned("nudge", str(self.time_s), "file:///none", "0" * 64)
        self.loader.assign((*assignment, extra))


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.loader.stop()
    bench.thread.join(TIMEOUT_S)
    assert not bench.thread.is_alive()


def expert(directory: Path, seed: int = 0, **changes: Any) -> WrittenExpert:
    defaults: dict[str, Any] = {"hidden_size": HIDDEN, "intermediate_size": 24, "layers": (0, 1)}
    return write_expert(directory, seed=seed, **{**defaults, **changes})


def test_an_expert_comes_onto_the_shelf(bench: Bench, tmp_path: Path) -> None:
    assigned = bench.holds(expert(tmp_path))
    bench.loader.assign((assigned,))
    assert bench.wait_for(assigned, Phase.SERVING).layers == (0, 1)
    assert bench.shelf.has(assigned.sha256, (0, 1))
    assert bench.shelf.find(assigned.sha256, 2) is None
    assert "16x24" in bench.rules.fingerprint


def test_only_the_layers_named_are_served(bench: Bench, tmp_path: Path) -> None:
    whole = bench.holds(expert(tmp_path))
    assigned = Assigned("e0", "v1", whole.uri, whole.sha256, (1,))
    bench.loader.assign((assigned,))
    assert bench.wait_for(assigned, Phase.SERVING).layers == (1,)
    assert bench.shelf.find(assigned.sha256, 0) is None


def test_the_same_assignment_again_changes_nothing(bench: Bench, tmp_path: Path) -> None:
    assigned = bench.holds(expert(tmp_path))
    bench.loader.assign((assigned,))
    bench.wait_for(assigned, Phase.SERVING)
    before, kernel = bench.changes, bench.shelf.find(assigned.sha256, 0)
    bench.loader.assign((assigned,))
    assert bench.changes == before
    assert bench.source.fetched == [assigned.sha256]
    assert bench.shelf.find(assigned.sha256, 0) is kernel


def test_a_copy_under_another_name_shares_the_weights(bench: Bench, tmp_path: Path) -> None:
    assigned = bench.holds(expert(tmp_path))
    twin = Assigned("twin", "v9", assigned.uri, assigned.sha256)
    bench.loader.assign((assigned,))
    bench.wait_for(assigned, Phase.SERVING)
    kernel = bench.shelf.find(assigned.sha256, 0)
    bench.loader.assign((assigned, twin))
    bench.wait_for(twin, Phase.SERVING)
    assert bench.shelf.find(assigned.sha256, 0) is kernel


def test_what_is_replaced_leaves_the_inventory_at_once_and_the_shelf_later(
    bench: Bench, tmp_path: Path
) -> None:
    old, new = (bench.holds(expert(tmp_path, seed)) for seed in (1, 2))
    bench.loader.assign((old,))
    bench.wait_for(old, Phase.SERVING)
    bench.loader.assign((new,))
    bench.wait_for(new, Phase.SERVING)
    assert [a for a, _ in bench.loader.states()] == [new]
    assert bench.shelf.has(old.sha256, (0, 1)), "rows on their way are still answered"
    bench.move_on(1.5, (new,))
    assert bench.wait_for_line("dropped")["sha256"] == [old.sha256]
    assert bench.shelf.find(old.sha256, 0) is None
    assert bench.shelf.has(new.sha256, (0, 1))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param({"hidden_size": 8}, "hiddenSize is 8; the mixture's is 16", id="hidden size"),
        pytest.param(
            {"dtype": "Float32"}, "dtype is Float32; the mixture's is BFloat16", id="dtype"
        ),
    ],
)
def test_an_artifact_that_does_not_fit_is_refused(
    bench: Bench, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    wrong, right = bench.holds(expert(tmp_path, **changes)), bench.holds(expert(tmp_path, 5))
    bench.loader.assign((wrong, right))
    state = bench.wait_for(wrong, Phase.REFUSED)
    assert state.failure is not None
    assert state.failure.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert sentence in state.failure.message
    bench.wait_for(right, Phase.SERVING)
    assert bench.shelf.find(wrong.sha256, 0) is None


def test_layers_that_the_artifact_lacks_are_refused(bench: Bench, tmp_path: Path) -> None:
    whole = bench.holds(expert(tmp_path))
    assigned = Assigned("e0", "v1", whole.uri, whole.sha256, (1, 7))
    bench.loader.assign((assigned,))
    failure = bench.wait_for(assigned, Phase.REFUSED).failure
    assert failure is not None
    assert "layers are [0, 1]; [7] are asked for too" in failure.message


def test_a_wrong_digest_is_not_tried_again(bench: Bench, tmp_path: Path) -> None:
    assigned = bench.holds(expert(tmp_path))
    bench.source.troubles[assigned.sha256] = [WrongDigest("sha256 is another")]
    bench.loader.assign((assigned,))
    bench.wait_for(assigned, Phase.REFUSED)
    bench.move_on(3600, (assigned,))
    bench.wait_for_line("not_loaded", times=2)
    assert bench.source.fetched.count(assigned.sha256) == 1


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        pytest.param(Unavailable("no answer"), grpc.StatusCode.UNAVAILABLE, id="unavailable"),
        pytest.param(MemoryError("no room"), grpc.StatusCode.INTERNAL, id="unforeseen"),
    ],
)
def test_trouble_is_told_and_tried_again(
    bench: Bench, tmp_path: Path, trouble: Exception, code: grpc.StatusCode
) -> None:
    assigned = bench.holds(expert(tmp_path))
    bench.source.troubles[assigned.sha256] = [trouble]
    bench.loader.assign((assigned,))
    bench.wait_for_line("not_loaded")
    (state,) = (s for a, s in bench.loader.states() if a == assigned)
    assert state.phase is Phase.FETCHING
    assert state.failure is not None
    assert state.failure.code == code.value[0]
    assert str(trouble) in state.failure.message
    bench.move_on(1.0, (assigned,))
    assert bench.wait_for(assigned, Phase.SERVING).failure is None


def test_a_fetch_that_nobody_wants_any_more_is_cancelled(bench: Bench, tmp_path: Path) -> None:
    stuck, right = (bench.holds(expert(tmp_path, seed)) for seed in (1, 2))
    bench.source.blocked.add(stuck.sha256)
    bench.loader.assign((stuck,))
    bench.loader.assign((right,))
    bench.wait_for(right, Phase.SERVING)


def test_the_inventory_has_only_what_is_served() -> None:
    identity = Identity("pod", "node", "1")
    states = [
        (named("a"), State(Phase.SERVING, layers=(0, 1))),
        (named("b"), State(Phase.WARMING)),
        (named("c"), State(Phase.REFUSED)),
    ]
    inventory = make_inventory(identity, states, FLOAT32, "print", draining=False)
    assert [(s.expert_id, list(s.layers)) for s in inventory.servable] == [("a", [0, 1])]
    assert inventory.fingerprint == "print"
    assert not ready(states, draining=False)
    assert ready(states[:1], draining=False)
    assert not ready(states[:1], draining=True)
    assert assigned_state(*states[1]).phase == AssignedState.WARMING
