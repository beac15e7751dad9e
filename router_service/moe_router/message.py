"""What an exchange asks of one worker, and what it needs to know of the world to do so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from moe_router.cold import Version, Waking
from moe_router.ladder import Ask, Lost
from moe_router.plan import Pairs
from moe_router.replica import Routable
from moe_router.view import View
from moeops.v1.link_pb2 import Result

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Part:
    """The pairs of a message that go to one artifact."""

    lost: Lost
    ask: Ask
    pairs: Pairs


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace of a sampled request, and in it the span of each part of a message."""

    trace_id: int
    spans: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """What one worker is asked: the rows of all parts, one after another."""

    worker: str
    layer: int
    parts: tuple[Part, ...]
    pairs: Pairs  # (n,) those of all parts
    rows: Array  # (n, H)
    sent_s: float
    timeout_s: float
    trace: Trace | None = None


@dataclass(frozen=True, slots=True)
class Outlook:
    """The world at one moment, as far as an exchange needs it.

    By worker, `load` are rows that wait there, `lateness` rows that count as if they did.
    """

    now_s: float
    newest: View
    routable: Routable
    load: Mapping[str, int]
    lateness: Mapping[str, int] = field(default_factory=dict)
    wakings: Mapping[Version, Waking] = field(default_factory=dict)


def fits(message: Message, result: Result, body_bytes: int) -> bool:
    """Whether an answer has a group for each part and the rows of those that did not fail."""
    if len(result.groups) != len(message.parts):
        return False
    pairs = zip(message.parts, result.groups, strict=True)
    answered = sum(len(part.pairs) for part, group in pairs if not group.HasField("failure"))
    return body_bytes == answered * int(message.rows.shape[1]) * message.rows.itemsize


def replaceable(message: Message, routable: Routable) -> bool:
    """Whether other workers with live links could take all parts of a message just as well."""
    return all(_has_other(message, part, routable) for part in message.parts)


def _has_other(message: Message, part: Part, routable: Routable) -> bool:
    sha256, failed = part.ask.sha256, part.lost.history.failed
    return any(
        worker != message.worker and (worker, sha256) not in failed
        for worker in routable.live.get((sha256, message.layer), ())
    )
