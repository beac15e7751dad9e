"""Whatever a worker's end of a link says: each attempt ends once, with its own rows or none."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_core.frames import PROTOCOL, encode
from moe_router.connection import Connection
from moe_router.ladder import Cause
from moe_router.link import Link
from moe_router.message import Message
from moeops.v1.link_pb2 import (
    GroupResult,
    Heartbeat,
    Inventory,
    LinkFrame,
    Result,
    Servable,
)
from tests.fuzz.damage import CORPUS, blows, pieces, struck
from tests.support.messages import message_to

DIGEST = "ab" * 32


class Wire(asyncio.Transport):
    """Takes what is written and forgets it; notes that it was cut."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = False

    def write(self, data: object) -> None:
        pass

    def is_closing(self) -> bool:
        return self.cut

    def abort(self) -> None:
        self.cut = True


class Nobody:
    """Keeps no links."""

    def offer_changed(self, link: Link) -> None:
        pass

    def load_changed(self, link: Link) -> None:
        pass


@dataclass
class Ear:
    """Notes what became of each message, by the value of its rows."""

    ends: Counter[float] = field(default_factory=Counter)
    bodies: dict[float, bytes] = field(default_factory=dict)

    def answered(self, message: Message, result: Result, body: memoryview) -> None:
        value = float(message.rows[0, 0])
        self.ends[value] += 1
        self.bodies[value] = bytes(body)

    def failed(self, message: Message, cause: Cause) -> None:
        self.ends[float(message.rows[0, 0])] += 1

    def late(self, message: Message) -> bool:
        return False


class Conversation:
    """A link on which three attempts are under way, each with rows of another value."""

    def __init__(self, protocol: int) -> None:
        self.protocol, self.wire, self.ear = protocol, Wire(), Ear()
        self.link = Link("w", Nobody(), lambda: 0.0)
        self.connection = Connection(self.link)
        self.connection.connection_made(self.wire)
        self.messages = [message_to("w", DIGEST, value=float(value)) for value in (1, 2, 3)]
        self.connection.data_received(self.frame(self.inventory()))
        for message in self.messages:
            assert self.link.send(message, self.ear)

    def inventory(self) -> LinkFrame:
        servable = [Servable(expert_id="e", sha256=DIGEST, layers=[0])]
        return LinkFrame(inventory=Inventory(protocol=self.protocol, worker="w", servable=servable))

    def frame(self, header: LinkFrame, body: bytes = b"") -> bytes:
        return encode(header, body, self.protocol) + body

    def honest(self) -> bytes:
        """Return what an honest worker would say: each attempt's rows as their answer."""
        said = [self.frame(LinkFrame(heartbeat=Heartbeat(queued_rows=6)))]
        for number, message in enumerate(self.messages, 1):
            result = Result(attempt=number, groups=[GroupResult(norm_sum=1.0)])
            said.append(self.frame(LinkFrame(result=result), message.rows.tobytes()))
        return b"".join([*said, self.frame(self.inventory())])

    def hear(self, data: bytes, cuts: list[int]) -> None:
        """Hear it in pieces until the link hangs up; then the connection is over in any case."""
        for piece in pieces(data, cuts):
            if self.wire.cut:
                break
            self.connection.data_received(piece)
        self.connection.connection_lost(None)


@pytest.mark.parametrize("protocol", range(1, PROTOCOL + 1))
@settings(max_examples=400, deadline=None)
@given(blows(), st.lists(st.integers(1, 90), max_size=4))
def test_damaged_answers_end_each_attempt_once(
    protocol: int, blows: list[Any], cuts: list[int]
) -> None:
    it = Conversation(protocol)
    it.hear(struck(it.honest(), blows), cuts)

    assert it.ear.ends == {1.0: 1, 2.0: 1, 3.0: 1}
    assert it.link.load == 0


@settings(max_examples=400, deadline=None)
@given(blows(), st.lists(st.integers(1, 90), max_size=4))
def test_with_sums_nobody_gets_rows_but_its_own(blows: list[Any], cuts: list[int]) -> None:
    it = Conversation(PROTOCOL)
    it.hear(struck(it.honest(), blows), cuts)

    own = {float(m.rows[0, 0]): m.rows.tobytes() for m in it.messages}
    assert it.ear.bodies.items() <= own.items()


def test_an_honest_worker_is_understood() -> None:
    it = Conversation(PROTOCOL)
    it.hear(it.honest(), [])

    assert sorted(it.ear.bodies) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("data", CORPUS)
@pytest.mark.parametrize("protocol", range(1, PROTOCOL + 1))
def test_what_is_no_frame_ends_each_attempt_once(protocol: int, data: bytes) -> None:
    it = Conversation(protocol)
    it.hear(data, [])

    assert it.ear.ends == {1.0: 1, 2.0: 1, 3.0: 1}
    assert it.ear.bodies == {}
