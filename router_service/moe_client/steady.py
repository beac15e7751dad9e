"""Steady load on a mixture: sessions that ask without pause, and a record of each request.

Each session repeats one recorded text as a model would, layer after layer and some rows at a
time, under a name of its own; then it begins another. A recording has the choices of one version
of each gate, so a session that a rollout puts on another one is passed over, and counted. Runs in
a thread of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Many
from concurrent.futures import Future
from types import TracebackType
from typing import Final, Self

from moe_client.aio import RouterClient
from moe_client.channel import Credentials
from moe_client.errors import Mismatch, MoeError
from moe_client.figures import Record, Report, report
from moe_client.messages import Answer, Choice, Rows
from moe_client.mixture import Mixture
from moe_client.recording import LayerRows, Recording, Text, random_recording
from moe_client.sessions import SessionBook, SessionState
from moe_core.loop_thread import LoopThread

# After a session on another gate, before the next one is tried.
_PASSED_OVER_S: Final = 0.02

Judge = Callable[[SessionState, LayerRows, Answer], bool | None]
"""Says whether an answer to a session has other bits than it should have, None if nobody knows."""


def as_recorded(state: SessionState, asked: LayerRows, answer: Answer) -> bool | None:
    """Compare with the answer that was recorded, if one was."""
    return None if asked.expected is None else answer.hidden.tobytes() != asked.expected.tobytes()


class SteadyLoad:
    """Load from entering the block to leaving it; reports may be asked for at any time.

    `rows` is the number of rows in a message, as a batch of one would have in decoding (1) or
    prefill (more). `requests_per_s` bounds all sessions together; None is as fast as it goes.
    Without a recording the requests are random. Recorded choices are taken for those of the
    versions of gates that are stable when the load begins. `judge` is called in the load's thread.
    """

    def __init__(
        self,
        addresses: str | Many[str],
        recording: Recording | None = None,
        *,
        mixture: str = "",
        sessions: int = 4,
        rows: int = 1,
        requests_per_s: float | None = None,
        timeout_s: float = 5.0,
        judge: Judge = as_recorded,
        credentials: Credentials | None = None,
        token: str | None = None,
    ) -> None:
        self._client = RouterClient(
            addresses,
            mixture=mixture,
            timeout_s=timeout_s,
            credentials=credentials,
            token=token,
        )
        self._recording, self._judge = recording, judge
        self._sessions, self._rows = sessions, rows
        self._period_s = sessions / requests_per_s if requests_per_s else 0.0
        self._book = SessionBook()
        self._lock = threading.Lock()
        self._records: list[Record] = []
        self._waiting: dict[int, float] = {}
        self._passed_over: list[float] = []
        self._numbers = itertools.count()
        self._ended_s: float | None = None

    def __enter__(self) -> Self:
        """Begin. Raises MoeError where no router describes the mixture."""
        self._thread = LoopThread("moe-load")
        try:
            served = self._thread.submit(self._client.describe()).result()
        except BaseException:
            self._stop_thread()
            raise
        self._began_s = self.now()
        texts = (self._recording or random_recording(served)).texts
        self._work: Future[None] = self._thread.submit(self._run(served, texts))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End; requests under way are left unanswered and uncounted. Once more does nothing."""
        if self._ended_s is None:
            self._ended_s = self.now()
            self._work.cancel()
            self._stop_thread()

    @staticmethod
    def now() -> float:
        """Return the time of the clock that records and windows use."""
        return time.monotonic()

    @property
    def requests(self) -> int:
        """Requests that have ended."""
        with self._lock:
            return len(self._records)

    def records(self) -> list[Record]:
        """Return what has ended so far, in the order of ending."""
        with self._lock:
            return list(self._records)

    def report(self, since_s: float | None = None, until_s: float | None = None) -> Report:
        """Sum up a window of time; from the begin to now, or the end, where nothing else is said.

        Raises what ended the load by itself, if something did.
        """
        if self._work.done() and not self._work.cancelled():
            self._work.result()
        until_s = until_s or self._ended_s or self.now()
        with self._lock:
            records, waiting = list(self._records), list(self._waiting.values())
            passed_over = list(self._passed_over)
        return report(records, waiting, since_s or self._began_s, until_s, passed_over)

    def _stop_thread(self) -> None:
        self._thread.submit(self._client.close()).result()
        self._thread.stop()

    async def _run(self, served: Mixture, texts: Many[Text]) -> None:
        turns = itertools.cycle(texts)
        async with asyncio.TaskGroup() as group:
            for number in range(self._sessions):
                delay_s = self._period_s * number / self._sessions
                group.create_task(self._talk(served, turns, delay_s))

    async def _talk(self, served: Mixture, turns: itertools.cycle[Text], delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        due_s = self.now()
        while True:
            text, session = next(turns), secrets.token_hex(8)
            if not await self._begin(served, session, text):
                await asyncio.sleep(_PASSED_OVER_S)
                continue
            for part in _parts(text, self._rows):
                if not await self._ask(served, session, part):
                    break
                due_s = max(due_s + self._period_s, self.now() - self._period_s)
                await asyncio.sleep(max(due_s - self.now(), 0))
            self._book.forget(session)

    async def _begin(self, served: Mixture, session: str, text: Text) -> bool:
        """Begin a session; whether it can be gone on with. One that nobody begins has failed."""
        began_s, layers = self.now(), [rows.layer for rows in text.layers]
        try:
            fits = await self._fits(served, session, layers)
        except MoeError as error:
            self._add(Record(began_s, self.now(), 0, failure=str(error)))
            return False
        if not fits:
            self._pass_over()
        return fits

    async def _fits(self, served: Mixture, session: str, layers: Many[int]) -> bool:
        """Ask whether a session is on the versions of gates that were recorded. Raises MoeError."""
        begun = await self._client.begin({session: self._book.state(session).start_token})
        self._book.begin(begun.starts)
        (start,) = begun.starts
        gates = [gate for layer in layers if (gate := served.gate_of(layer)) is not None]
        return all(start.gates.get(gate.name, gate.sha256) == gate.sha256 for gate in gates)

    async def _ask(self, served: Mixture, session: str, part: LayerRows) -> bool:
        """Ask once, and note what came of it; False where the session lost its gate."""
        gate = served.gate_of(part.layer)
        sha256 = gate.sha256 if gate else ""
        rows = Rows(part.layer, part.hidden, (self._book.ask(session, len(part.hidden)),))
        choice = Choice(sha256, part.expert_index, part.expert_weights)
        number, began_s = next(self._numbers), self.now()
        with self._lock:
            self._waiting[number] = began_s
        try:
            answer = await self._client.dispatch(rows, choice, trunk_sha256=served.trunk_sha256)
        except MoeError as error:
            if isinstance(error, Mismatch) and await self._lost(served, session, part):
                self._pass_over()
                return False
            self._add(Record(began_s, self.now(), len(part.hidden), failure=str(error)))
        else:
            self._book.record(rows, answer)
            different = self._judge(self._book.state(session), part, answer)
            self._add(_record(began_s, self.now(), answer, different))
        finally:
            with self._lock:
                self._waiting.pop(number, None)

        return True

    async def _lost(self, served: Mixture, session: str, part: LayerRows) -> bool:
        """Say whether a session is on another version of a gate by now, as far as is known."""
        try:
            return not await self._fits(served, session, [part.layer])
        except MoeError:
            return False

    def _add(self, record: Record) -> None:
        with self._lock:
            self._records.append(record)

    def _pass_over(self) -> None:
        with self._lock:
            self._passed_over.append(self.now())


def _parts(text: Text, rows: int) -> Iterator[LayerRows]:
    """Give the layers of some rows, then of the next ones."""
    for start in range(0, text.rows, rows):
        for layer in text.layers:
            yield layer.part(start, start + rows)


def _record(began_s: float, ended_s: float, answer: Answer, different: bool | None) -> Record:
    (outcome,) = answer.outcomes
    return Record(
        began_s,
        ended_s,
        len(answer.hidden),
        epoch=answer.epoch,
        degraded_ppm=outcome.degraded_ppm,
        rungs=tuple((item.rung, item.expert_id, item.rows) for item in outcome.rungs),
        different=different,
    )
