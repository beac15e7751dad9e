"""Brings what is assigned onto the shelf, and takes off what no longer is: level-triggered.

One thread does all the loading, while others go on serving what is there. An expert that is no
longer assigned leaves the inventory at once and the shelf a little later, so that rows already on
their way are still answered. It decides nothing about sockets or health: `changed` is told.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from moe_artifacts.errors import ArtifactError, Cancelled, Unavailable
from moe_core.exactness import NotExact
from moe_core.log import Log
from moe_worker.assignment import Assigned, Assignment
from moe_worker.expert import Fit, Rules, load, warm
from moe_worker.failure import Code, fail
from moe_worker.phases import TRANSITIONS, Event, Phase
from moe_worker.shelf import Shelf, Slot
from moe_worker.source import Source
from moeops.v1.types_pb2 import Failure

LINGER_S = 1.0
_FIRST_RETRY_S = 0.5
_LAST_RETRY_S = 30.0
_FOREVER_S = 3600.0


@dataclass(frozen=True, slots=True)
class State:
    """How far one assigned expert is. `layers` are those served, known from SERVING on.

    `since` is when its phase began to be worked on, `took` the seconds of those that are over.
    """

    phase: Phase = Phase.FETCHING
    failure: Failure | None = None
    tries: int = 0
    retry_at: float = 0.0
    layers: tuple[int, ...] = ()
    since: float = 0.0
    took: Mapping[Event, float] = field(default_factory=dict)


def after(state: State, event: Event, failure: Failure | None, now: float) -> State:
    """Return the state behind an event; what was unavailable waits longer each time."""
    phase = TRANSITIONS[state.phase][event]
    if event is not Event.UNAVAILABLE:
        took = {**state.took, event: now - state.since}
        return replace(state, phase=phase, failure=failure, since=now, took=took)
    pause = min(_FIRST_RETRY_S * 2**state.tries, _LAST_RETRY_S)
    return replace(state, phase=phase, failure=failure, tries=state.tries + 1, retry_at=now + pause)


def next_due(states: Mapping[Assigned, State], now: float) -> tuple[Assigned | None, float]:
    """Return the first expert to work on, and how many seconds until there may be another."""
    open_ones = [(a, s) for a, s in states.items() if s.phase is Phase.FETCHING]
    due = next((a for a, s in open_ones if s.retry_at <= now), None)
    wait = min((s.retry_at - now for _, s in open_ones), default=_FOREVER_S)
    return due, max(wait, 0.0)


class Loader:
    """Holds the assignment and the state of each expert in it."""

    def __init__(
        self,
        source: Source,
        shelf: Shelf,
        fit: Fit,
        rules: Rules,
        *,
        changed: Callable[[], None],
        log: Log,
        clock: Callable[[], float],
    ) -> None:
        self._source, self._shelf, self._fit, self._rules = source, shelf, fit, rules
        self._changed, self._log, self._clock = changed, log, clock
        self._wake = threading.Condition()
        self._states: dict[Assigned, State] = {}
        self._unwanted: dict[Slot, float] = {}  # when each leaves the shelf
        self._under_way: tuple[Assigned, threading.Event] | None = None
        self._stopped = False

    def assign(self, assignment: Assignment) -> None:
        """Replace the assignment. What is in both stays as it is."""
        with self._wake:
            gone = sorted(a.expert_id for a in self._states if a not in assignment)
            new = [a.expert_id for a in assignment if a not in self._states]
            if not gone and not new:
                return
            self._states = {a: self._states.get(a, State()) for a in assignment}
            if self._under_way is not None and self._under_way[0] not in self._states:
                self._under_way[1].set()
            self._wake.notify_all()
        self._log("assigned", experts=len(assignment), new=new, gone=gone)
        self._changed()

    def states(self) -> Sequence[tuple[Assigned, State]]:
        with self._wake:
            return list(self._states.items())

    def stop(self) -> None:
        with self._wake:
            self._stopped = True
            if self._under_way is not None:
                self._under_way[1].set()
            self._wake.notify_all()

    def run(self) -> None:
        """Work until stopped; the body of the loading thread."""
        while (work := self._next()) is not None:
            assigned, cancel = work
            try:
                self._bring(assigned, cancel)
            except Cancelled:
                pass
            except Unavailable as error:
                self._note(assigned, Event.UNAVAILABLE, Code.UNAVAILABLE, str(error))
            except torch.OutOfMemoryError as error:  # until others have left
                sentence = str(error).partition("\n")[0]
                self._note(assigned, Event.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, sentence)
            except (ArtifactError, NotExact) as error:
                code = Code.FAILED_PRECONDITION
                self._note(assigned, Event.REFUSED, code, str(error))
            except Exception as error:  # a worker that serves others goes on serving them
                sentence = f"{type(error).__name__}: {error}"
                self._note(assigned, Event.UNAVAILABLE, Code.INTERNAL, sentence)
            finally:
                self._under_way = None

    def _next(self) -> tuple[Assigned, threading.Event] | None:
        """Wait for work; return it, or None to end."""
        with self._wake:
            while not self._stopped:
                now = self._clock()
                sweep_s = self._sweep(now)
                due, wait_s = next_due(self._states, now)
                if due is not None:
                    self._states[due] = replace(self._states[due], since=now, took={})
                    self._under_way = due, threading.Event()
                    return self._under_way
                self._wake.wait(min(wait_s, sweep_s))
            return None

    def _sweep(self, now: float) -> float:
        """Take off what nobody wants for a while; return how long until there may be more."""
        wanted = {a.sha256 for a in self._states}
        unwanted = {slot for slot in self._shelf.slots() if slot[0] not in wanted}
        self._unwanted = {s: self._unwanted.get(s, now + LINGER_S) for s in unwanted}
        over = {slot for slot, at in self._unwanted.items() if at <= now}
        if over:
            self._shelf.drop(over)
            self._log("dropped", sha256=sorted({sha256 for sha256, _ in over}))
        left = [at - now for slot, at in self._unwanted.items() if slot not in over]
        return min(left, default=_FOREVER_S)

    def _bring(self, assigned: Assigned, cancel: threading.Event) -> None:
        sha256 = assigned.sha256
        path = self._source.fetch(assigned.uri, sha256, cancel)
        self._note(assigned, Event.FETCHED)
        artifact = self._source.read(path)
        layers = self._fit.check(artifact, assigned.layers)
        self._note(assigned, Event.VERIFIED)
        missing = [layer for layer in layers if not self._shelf.has(sha256, (layer,))]
        kernels = load(artifact, missing, self._rules)
        self._note(assigned, Event.LOADED)
        warm(kernels.values())
        self._shelf.put(sha256, kernels)
        self._note(assigned, Event.WARMED, layers=layers)

    def _note(
        self,
        assigned: Assigned,
        event: Event,
        code: Code | None = None,
        sentence: str = "",
        layers: tuple[int, ...] = (),
    ) -> None:
        failure = None if code is None else fail(code, sentence)
        with self._wake:
            state = self._states.get(assigned)
            if state is None:
                return
            state = replace(after(state, event, failure, self._clock()), layers=layers)
            self._states[assigned] = state
        fields = {"expert": assigned.expert_id, "sha256": assigned.sha256}
        if failure is not None:
            self._log("not_loaded", **fields, phase=state.phase.name, reason=sentence)
        if state.phase is Phase.SERVING:
            self._log("serving", **fields, layers=list(layers))
            self._changed()
