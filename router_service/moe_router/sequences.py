"""Reads whose rows a message has: sessions, their starts and pins, and what is forced on them.

At the edge: what is wrong is refused with a sentence that names the field, its value and what would
be right.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from moe_core.rollout import Version
from moe_core.rows import GateRow, GateVariant
from moe_router.refusal import Code, Refused
from moe_router.sessions import Pins, Start
from moe_router.variants import forced_variant, pinned_variant
from moe_router.view import View
from moeops.v1.router_pb2 import ForcedVersion, SequenceRows

ReadToken = Callable[[bytes, str, str], Start]  # as `sessions.read_token`
PinsOf = Callable[[View, str, Start | None], Pins]  # as `sessions.pins_of`

MAX_FORCED = 64
MAX_SEQUENCES = 4_096


@dataclass(frozen=True, slots=True)
class Sequence:
    """The rows `first` … `last` (excluded) of one session; `start` is None in its first request.

    `gate` is what chooses for them: the variant that the session's `pins` say, or the one that is
    forced (`gate_forced`). `token` is what `start` was read from; `forced` are the versions, by
    expert id, that must answer whatever the pins say. `context` is what the rows are about, empty
    where that is not said; `whole` where they are all rows of the sequence.
    """

    session: str
    start: Start | None
    first: int
    last: int
    gate: GateVariant
    pins: Pins
    token: bytes = b""
    forced: Mapping[str, Version] = field(default_factory=dict)
    gate_forced: bool = False
    context: str = ""
    whole: bool = False

    @property
    def evaluates(self) -> bool:
        """Whether these rows compare versions; then they say nothing of live sessions."""
        return self.gate_forced or bool(self.forced)


@dataclass(frozen=True, slots=True)
class GateReader:
    """Reads which variant of a layer's gate chose, or is to choose, for a sequence.

    `applied` is what the caller says of all its rows; None where this router applies the gate.
    """

    view: View
    row: GateRow
    layer: int
    pins_of: PinsOf
    applied: str | None

    def read(
        self, message: SequenceRows, start: Start | None, name: str
    ) -> tuple[Pins, GateVariant]:
        pins = self.pins_of(self.view, message.session, start)
        own = message.gate_sha256
        field_, sha256 = (f"{name}.gate_sha256", own) if own else ("gate_sha256", self.applied)
        pinned = pins.gate(self.row)
        if message.gate_forced:
            return pins, forced_variant(self.row, sha256 or "", field_)
        if sha256 is None:
            return pins, pinned
        session = message.session
        return pins, pinned_variant(self.row, pinned, sha256, field_, self.layer, session)


def read_sequences(
    messages: Iterable[SequenceRows], view: View, read: ReadToken, gates: GateReader
) -> tuple[Sequence, ...]:
    """Read the sequences of a message in their order. Raises Refused."""
    sequences: list[Sequence] = []
    first = 0
    for index, message in enumerate(messages):
        name = f"sequences[{index}]"
        check_session(message.session, name)
        if message.rows == 0:
            raise _invalid(f"{name}.rows is 0; it must be 1 or more")
        token, session = message.start_token, message.session
        start = read(token, session, f"{name}.start_token") if token else None
        forced = _forced(message.forced, view, name) if message.forced else {}
        pins, gate = gates.read(message, start, name)
        last, free = first + message.rows, message.gate_forced
        sequence = Sequence(session, start, first, last, gate, pins, token, forced, free)
        if message.context or message.whole:
            sequence = replace(sequence, context=message.context, whole=message.whole)
        sequences.append(sequence)
        first = last
    if not sequences:
        raise _invalid("sequences is empty; it must name the session of every row")
    return tuple(sequences)


def check_count(messages: Collection[SequenceRows]) -> None:
    """Raise Refused where reading them all would take too long."""
    if len(messages) > MAX_SEQUENCES:
        raise _invalid(f"sequences are {len(messages)}; one message may have {MAX_SEQUENCES}")


def check_session(session: str, name: str) -> None:
    """Raise Refused unless it is the name of a session; `name` is what holds it."""
    size = len(session.encode())
    if not 1 <= size <= 128:
        raise _invalid(f"{name}.session has {size} bytes; it must have 1 to 128")


def _forced(messages: Collection[ForcedVersion], view: View, name: str) -> dict[str, Version]:
    if len(messages) > MAX_FORCED:
        raise _invalid(f"{name}.forced has {len(messages)} versions; at most {MAX_FORCED}")
    found: dict[str, Version] = {}
    for index, message in enumerate(messages):
        expert_id, where = message.expert_id, f"{name}.forced[{index}]"
        if expert_id in found:
            raise _invalid(f"{where}.expert_id is {expert_id!r} once more; each may be named once")
        found[expert_id] = _forced_version(message, view, where)
    return found


def _forced_version(message: ForcedVersion, view: View, where: str) -> Version:
    row = view.experts.get(message.expert_id)
    if row is None:
        mixture = view.table.mixture
        text = f"it must be an expert of mixture {mixture!r}"
        raise _invalid(f"{where}.expert_id is {message.expert_id!r}; {text}")
    if message.sha256 in row.revoked:
        text = f"{where}.sha256 is {message.sha256}, a version of expert {row.expert_id!r} that"
        raise Refused(Code.FAILED_PRECONDITION, f"{text} was taken back and gets no rows any more")
    version = next((v for v in row.named if v.sha256 == message.sha256), None)
    if version is None:
        named = ", ".join(v.sha256 for v in row.named) or "none yet"
        text = f"the table names for expert {row.expert_id!r}: {named}"
        raise _invalid(f"{where}.sha256 is {message.sha256!r}; {text}")
    return version


def _invalid(message: str) -> Refused:
    return Refused(Code.INVALID_ARGUMENT, message)
