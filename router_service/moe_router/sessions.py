"""What a session is entitled to: its start token, its pins, and which of them were taken away.

Everything here is derived from the token and the table, so that any router says the same. A token
ends in a seal, a digest over table, epoch and session: any router can make it, so it needs no
secret and survives every restart, and a token that was altered, or that another session was given,
does not fit. That keeps clients from mistakes. Who knows the formula can choose the epoch in which
a session of its own began, and with it the side of a rollout that it is on, and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from moe_core.pins import bucket, pinned, weight_at
from moe_core.rollout import Outcome, Rollout, Version
from moe_core.rows import ExpertRow, GateRow, GateVariant
from moe_router.refusal import Code, Refused
from moe_router.view import View

_MAX_TOKEN_BYTES = 256
_SEAL_DIGITS = 16
_EXPECTED = "it must be empty or exactly what the session's first answer returned"


@dataclass(frozen=True, slots=True)
class Start:
    """When a session began: an epoch, which means something only within one table's uid."""

    uid: str
    epoch: int

    def to_token(self, session: str) -> bytes:
        """Return what this session is to repeat in its later requests."""
        told = f"{self.uid}:{self.epoch}"
        seal = hashlib.sha256(f"start\0{told}\0{session}".encode()).hexdigest()
        return f"2:{told}:{seal[:_SEAL_DIGITS]}".encode()

    def known_to(self, view: View) -> bool:
        """Whether a table is of this uid and at least of this epoch."""
        return view.table.uid == self.uid and view.table.epoch >= self.epoch


def read_token(token: bytes, session: str, field: str) -> Start:
    """Read what an earlier answer returned to a session. Raises Refused, which names `field`."""
    try:
        text = token.decode("ascii") if len(token) <= _MAX_TOKEN_BYTES else ""
    except UnicodeDecodeError:
        text = ""
    version, _, rest = text.partition(":")
    uid, *end = rest.rsplit(":", 2)
    if version != "2" or len(end) != 2 or not (end[0].isdigit() and len(end[0]) <= 18):
        text = f"{field} is {_show(token)}; {_EXPECTED}"
        raise Refused(Code.INVALID_ARGUMENT, text)
    start = Start(uid, int(end[0]))
    if start.to_token(session) != token:
        text = f"{field} is {_show(token)}, which is not a token of session {session!r}"
        raise Refused(Code.INVALID_ARGUMENT, f"{text}; {_EXPECTED}")
    return start


class Tokens:
    """Remembers, within bounds, tokens that were read: a session brings its own every time."""

    def __init__(self, capacity: int = 16_384) -> None:
        self._capacity = capacity
        self._read: dict[tuple[bytes, str], Start] = {}

    def read(self, token: bytes, session: str, field: str) -> Start:
        """Do what `read_token` does."""
        start = self._read.get((token, session))
        if start is None:
            start = read_token(token, session, field)
            if len(self._read) >= self._capacity:
                self._read.clear()
            self._read[token, session] = start
        return start


def check_start(start: Start, view: View) -> None:
    """Raise Refused unless a table knows the epoch in which a session began."""
    table = view.table
    if start.uid != table.uid:
        raise Refused(
            Code.FAILED_PRECONDITION,
            f"the session began with a table of uid {start.uid!r}; the one served is "
            f"{table.uid!r}: begin a new session",
        )
    if start.epoch > table.epoch:
        raise Refused(
            Code.UNAVAILABLE,
            f"the session began in epoch {start.epoch}; this router has only seen {table.epoch}",
            retry_after_ms=200,
        )


def _show(token: bytes) -> str:
    return repr(token if len(token) <= 80 else token[:77] + b"...")


@dataclass(frozen=True, slots=True)
class Taken:
    """An expert, or a gate, whose version a rollout of this revision took from a session."""

    name: str  # the expert's id, or the gate's name
    revision: int
    gate: bool = False


@dataclass(frozen=True, slots=True)
class Pins:
    """Where a session's versions differ from stable, and which ones were taken from it.

    `moved` is by expert id, `gates` by the name of a gate. For the experts in `forced` no other
    version may answer.
    """

    moved: Mapping[str, Version]
    taken: tuple[Taken, ...] = ()
    forced: frozenset[str] = frozenset()
    gates: Mapping[str, GateVariant] = field(default_factory=dict)

    def of(self, row: ExpertRow) -> Version | None:
        return self.moved.get(row.expert_id, row.stable)

    def gate(self, row: GateRow) -> GateVariant:
        return self.gates.get(row.name, row.stable)

    def force(self, versions: Mapping[str, Version]) -> Pins:
        """Return these pins with some versions, by expert id, put in their place."""
        if not versions:
            return self
        return replace(self, moved={**self.moved, **versions}, forced=frozenset(versions))


def pin(view: View, session: str, began: int) -> Pins:
    """Derive the versions of one session; `began` is an epoch of this view's uid."""
    moved: dict[str, Version] = {}
    gates: dict[str, GateVariant] = {}
    taken = []
    for row in view.rolling:
        version = pinned(row, session, began)
        if version is not None and version != row.stable:
            moved[row.expert_id] = version
        if row.rollout is not None and _took_its_version(row, row.rollout, session, began):
            taken.append(Taken(row.expert_id, row.rollout.revision))
    for gate in view.rolling_gates:
        variant = pinned(gate, session, began)
        if variant != gate.stable:
            gates[gate.name] = variant
        if gate.rollout is not None and _took_its_version(gate, gate.rollout, session, began):
            taken.append(Taken(gate.name, gate.rollout.revision, gate=True))
    return Pins(moved, tuple(taken), gates=gates)


def pins_of(view: View, session: str, start: Start | None) -> Pins:
    """Derive the versions of a session that began then, or that begins with this table."""
    return pin(view, session, view.table.epoch if start is None else start.epoch)


class PinsKept:
    """Remembers, within bounds, pins that were derived from the newest table."""

    def __init__(self, capacity: int = 16_384) -> None:
        self._capacity = capacity
        self._view: View | None = None
        self._pins: dict[tuple[str, int], Pins] = {}

    def of(self, view: View, session: str, start: Start | None) -> Pins:
        """Do what `pins_of` does."""
        if not view.rolling and not view.rolling_gates:
            return _STABLE
        if self._view is not view or len(self._pins) >= self._capacity:
            self._pins, self._view = {}, view
        key = (session, view.table.epoch if start is None else start.epoch)
        if key not in self._pins:
            self._pins[key] = pin(view, *key)
        return self._pins[key]


_STABLE = Pins({})


def _took_its_version(row: ExpertRow | GateRow, rollout: Rollout, session: str, began: int) -> bool:
    """Whether the last rollout took from this session the version that it used.

    A rollout that was taken back took its target; one that was promoted took the old version once
    its pods are gone. Sessions that began on the other side, or afterwards, lost nothing; nor did
    those that began before the very first version, which has no trial.
    """
    if not rollout.outcome.ended or row.stable is None:
        return False
    on_target = bucket(rollout.salt, session) < weight_at(rollout.weights, began) * 100
    if rollout.outcome is Outcome.PROMOTED:
        tried = len(rollout.weights) > 1 and row.stable.sha256 == rollout.target.sha256
        return tried and not on_target and row.previous is None
    return on_target and rollout.target.sha256 in row.revoked
