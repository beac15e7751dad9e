"""What a client remembers of its sessions: start tokens, and what happened to them.

Bounded: past `limit` sessions the one used longest ago is forgotten; if it comes back it simply
begins anew. Safe from any thread. Which row belongs to which session is decided in `calls`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from moe_client.begun import Start
from moe_client.messages import Answer, Outcome, Rows, Sequence

DEFAULT_LIMIT = 65_536

Forced = tuple[tuple[str, str], ...]
"""(expert, sha256) of versions that are wanted whatever the pins say."""


@dataclass(frozen=True, slots=True)
class SessionState:
    """One session so far, over all its layers and tokens. `rows` counts each layer's rows.

    `degraded_share` is the mean over rows of lost gate mass (0 … 1); `rungs` counts rows by
    (rung, expert), those that are not degraded too (`Replica`, `Stable`). `gates` has the sha256 of
    its version of each gate, by name; empty before its first call.
    """

    session: str
    start_token: bytes = b""
    epoch: int = 0
    rows: int = 0
    degraded: bool = False
    degraded_share: float = 0.0
    repinned_experts: frozenset[str] = frozenset()
    rungs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    gates: Mapping[str, str] = field(default_factory=dict)
    repinned_gates: frozenset[str] = frozenset()

    @property
    def repinned(self) -> frozenset[str]:
        """Experts and gates whose version it lost."""
        return self.repinned_experts | self.repinned_gates

    def after(self, rows: int, outcome: Outcome, epoch: int) -> Self:
        """Return the state after one more answer with `rows` rows of this session."""
        rungs = dict(self.rungs)
        for item in outcome.rungs:
            key = item.rung, item.expert_id
            rungs[key] = rungs.get(key, 0) + item.rows
        lost = self.degraded_share * self.rows + outcome.degraded_ppm * rows / 1e6
        total = self.rows + rows
        return replace(
            self,
            start_token=outcome.start_token or self.start_token,
            epoch=max(epoch, self.epoch),
            rows=total,
            degraded=self.degraded or outcome.degraded,
            degraded_share=lost / total if total else 0.0,
            repinned_experts=self.repinned_experts | set(outcome.repinned_experts),
            rungs=rungs,
            repinned_gates=self.repinned_gates | set(outcome.repinned_gates),
        )


class SessionBook:
    """The sessions of one client."""

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._limit = limit
        self._states: OrderedDict[str, SessionState] = OrderedDict()
        self._lock = threading.Lock()

    def ask(self, session: str, rows: int, forced: Forced = ()) -> Sequence:
        """Return this session's part of a question, with the token that it has by now."""
        return Sequence(session, rows, self.state(session).start_token, forced)

    def begin(self, starts: Iterable[Start]) -> None:
        """Take in which version of each gate sessions see, and their start tokens."""
        with self._lock:
            for start in starts:
                state = self._states.get(start.session, SessionState(start.session))
                token = start.start_token or state.start_token
                self._put(replace(state, start_token=token, gates=start.gates))

    def record(self, rows: Rows, answer: Answer) -> None:
        """Take in what an answer says of the sessions that were asked about."""
        with self._lock:
            for sequence, outcome in zip(rows.sequences, answer.outcomes, strict=True):
                state = self._states.get(sequence.session, SessionState(sequence.session))
                self._put(state.after(sequence.rows, outcome, answer.epoch))

    def state(self, session: str) -> SessionState:
        """Return a session as it is now; one that is not known has seen nothing yet."""
        with self._lock:
            return self._states.get(session, SessionState(session))

    def forget(self, session: str) -> None:
        """Drop a session: the next row under its name begins it anew."""
        with self._lock:
            self._states.pop(session, None)

    def _put(self, state: SessionState) -> None:
        self._states[state.session] = state
        self._states.move_to_end(state.session)
        while len(self._states) > self._limit:
            self._states.popitem(last=False)
