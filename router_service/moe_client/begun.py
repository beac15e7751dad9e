"""Sessions that begin before they have rows: what is asked, and what each is told. Pure.

A gate that the client applies must be known before there are hidden states to send: the answer
says which version of each gate a session sees, and its start token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from moe_client.errors import MalformedAnswer
from moeops.v1.router_pb2 import BeginRequest, BeginResponse, SessionRef

MAX_SESSIONS = 1_024
"""In one message."""


@dataclass(frozen=True, slots=True)
class Start:
    """A session as it begins, or as it stands: sha256 of its version of each gate, by name."""

    session: str
    start_token: bytes
    gates: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Begun:
    """Sessions in the order asked, by the table of this epoch."""

    table_uid: str
    epoch: int
    starts: tuple[Start, ...]

    @classmethod
    def read(cls, message: BeginResponse, sessions: Sequence[str]) -> Self:
        """Read a router's answer about `sessions`. Raises MalformedAnswer."""
        if len(message.sessions) != len(sessions):
            raise MalformedAnswer(
                f"the answer tells of {len(message.sessions)} sessions; "
                f"{len(sessions)} were to begin",
                epoch=message.epoch,
            )
        starts = tuple(
            Start(session, told.start_token, {gate.name: gate.sha256 for gate in told.gates})
            for session, told in zip(sessions, message.sessions, strict=True)
        )
        return cls(message.table_uid, message.epoch, starts)


def to_request(mixture: str, sessions: Mapping[str, bytes]) -> BeginRequest:
    """Return the message for sessions and the start tokens that they have, empty if none."""
    refs = [SessionRef(session=name, start_token=token) for name, token in sessions.items()]
    return BeginRequest(mixture=mixture, sessions=refs)
