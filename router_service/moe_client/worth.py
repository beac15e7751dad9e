"""What answers were found to be worth, added up by session until it is sent. No I/O.

One session is one piece of evidence, however long, so sums are kept by session; each sum that is
taken away to be sent has a number, so that a router which gets it twice counts it once.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Self

from moe_client.errors import InvalidRequest
from moe_client.messages import MAX_SESSION_BYTES
from moeops.v1.router_pb2 import SessionOutcome

MAX_WAITING = 4096
MAX_NUMBERED = 65_536


@dataclass(frozen=True, slots=True)
class Worth:
    """Sums of one session: next-token loss in bits over `tokens`, any score over `scores`.

    A higher score is better. Raises InvalidRequest for what no router would take.
    """

    session: str
    start_token: bytes
    tokens: int = 0
    loss_bits: float = 0.0
    scores: int = 0
    score_sum: float = 0.0

    def __post_init__(self) -> None:
        size = len(self.session.encode())
        if not 1 <= size <= MAX_SESSION_BYTES:
            right = f"1 to {MAX_SESSION_BYTES}"
            raise InvalidRequest(f"session {self.session!r} has {size} bytes; it must have {right}")
        if not self.start_token:
            raise InvalidRequest(f"session {self.session} has no start token: nothing answered it")
        for name in ("loss_bits", "score_sum"):
            if not math.isfinite(value := getattr(self, name)):
                raise InvalidRequest(f"{name} is {value}; it must be finite")
        for name in ("tokens", "scores"):
            if (count := getattr(self, name)) < 0:
                raise InvalidRequest(f"{name} is {count}; it must be 0 or more")

    def plus(self, more: Worth) -> Self:
        """Return the sums, with the newer start token."""
        return replace(
            self,
            start_token=more.start_token,
            tokens=self.tokens + more.tokens,
            loss_bits=self.loss_bits + more.loss_bits,
            scores=self.scores + more.scores,
            score_sum=self.score_sum + more.score_sum,
        )

    def to_message(self, report: int) -> SessionOutcome:
        return SessionOutcome(
            session=self.session,
            start_token=self.start_token,
            report=report,
            tokens=self.tokens,
            loss_bits=self.loss_bits,
            scores=self.scores,
            score_sum=self.score_sum,
        )


class Ledger:
    """What waits to be sent, of a bounded number of sessions. Safe from any thread."""

    def __init__(self, limit: int = MAX_WAITING) -> None:
        self._limit = limit
        self._waiting: dict[str, Worth] = {}
        self._reports: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, worth: Worth) -> bool:
        """Add to a session's sums; False where too many sessions wait already."""
        with self._lock:
            known = self._waiting.get(worth.session)
            if known is None and len(self._waiting) >= self._limit:
                return False
            self._waiting[worth.session] = worth if known is None else known.plus(worth)
            return True

    def take(self) -> list[SessionOutcome]:
        """Return what waits, numbered, and wait for more."""
        with self._lock:
            taken, self._waiting = self._waiting, {}
            return [worth.to_message(self._next(name)) for name, worth in taken.items()]

    def _next(self, session: str) -> int:
        number = self._reports.pop(session, 0) + 1
        self._reports[session] = number
        if len(self._reports) > MAX_NUMBERED:
            self._reports.popitem(last=False)
        return number
