"""Begins sessions before their first rows: start tokens, and the gate that each is to apply.

A client that applies the gate itself must know which one a session sees before it has hidden
states to send. Pure: what is said here is what the requests that follow will be held to.
"""

from __future__ import annotations

from dataclasses import dataclass

from moe_core.rows import GateVariant
from moe_router.refusal import Code, Refused
from moe_router.sequences import PinsOf, ReadToken, check_session
from moe_router.sessions import Start, read_token
from moe_router.view import View
from moeops.v1.router_pb2 import BeginRequest

MAX_SESSIONS = 1_024


@dataclass(frozen=True, slots=True)
class Beginner:
    """A session that asks; `start` is None, and `token` empty, where it is to begin now."""

    session: str
    start: Start | None
    token: bytes


@dataclass(frozen=True, slots=True)
class Begun:
    """A session's start token, and the variant of each gate of the table, by its name."""

    token: bytes
    gates: tuple[tuple[str, GateVariant], ...]


def parse_begin(message: BeginRequest, read: ReadToken = read_token) -> list[Beginner]:
    """Read who is to begin, except for the mixture. Raises Refused."""
    count = len(message.sessions)
    if not 1 <= count <= MAX_SESSIONS:
        text = f"sessions has {count} of them; it must have 1 to {MAX_SESSIONS}"
        raise Refused(Code.INVALID_ARGUMENT, text)
    beginners = []
    for index, one in enumerate(message.sessions):
        name = f"sessions[{index}]"
        check_session(one.session, name)
        token = one.start_token
        start = read(token, one.session, f"{name}.start_token") if token else None
        beginners.append(Beginner(one.session, start, token))
    return beginners


def begin(beginner: Beginner, view: View, pins_of: PinsOf) -> Begun:
    """Say how a session stands in a table that knows its start."""
    start = beginner.start or Start(view.table.uid, view.table.epoch)
    pins = pins_of(view, beginner.session, start)
    return Begun(
        beginner.token or start.to_token(beginner.session),
        tuple((row.name, pins.gate(row)) for row in view.table.gates),
    )
