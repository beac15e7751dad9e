"""Asks Prometheus what the analysis of rollouts wants to know, in the background.

One task for each mixture asks all its questions at once, every few seconds; a look at the mixture
only reads what was answered last. Whatever goes wrong is an answer without a number.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

import aiohttp

from moe_core.log import tell_error
from moe_operator.cache import Key
from moe_operator.world import Answer, Question

_EVERY_S: Final = 5.0
_TIMEOUT: Final = aiohttp.ClientTimeout(total=4.0, sock_connect=2.0)
_LARGEST: Final = 1 << 20  # bytes of a response
_LONGEST: Final = 200  # characters of somebody else's sentence


class Sampler(Protocol):
    """Knows what was answered last, and what to ask."""

    def answers(self, key: Key) -> Mapping[Question, Answer]: ...

    def follow(self, key: Key, questions: tuple[Question, ...]) -> None:
        """Ask these from now on; at once where they are new."""
        ...

    async def leave(self, key: Key) -> None:
        """Ask nothing of a mixture any more, and forget what was answered."""
        ...


class Unasked:
    """A `Sampler` that asks nobody."""

    def answers(self, key: Key) -> Mapping[Question, Answer]:
        return {}

    def follow(self, key: Key, questions: tuple[Question, ...]) -> None:
        """Nothing is asked."""

    async def leave(self, key: Key) -> None:
        """Nothing was asked."""


@dataclass(slots=True)
class _Asked:
    """One mixture's questions and their answers."""

    questions: tuple[Question, ...]
    answers: dict[Question, Answer] = field(default_factory=dict)
    sooner: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Prometheus:
    """A `Sampler` over HTTP; `changed` is called where an answer is another than before."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        changed: Callable[[Key], None],
        now: Callable[[], datetime],
        every_s: float = _EVERY_S,
    ) -> None:
        self._session = session
        self._changed = changed
        self._now = now
        self._every_s = every_s
        self._mixtures: dict[Key, _Asked] = {}

    def answers(self, key: Key) -> Mapping[Question, Answer]:
        known = self._mixtures.get(key)
        return {} if known is None else dict(known.answers)

    def follow(self, key: Key, questions: tuple[Question, ...]) -> None:
        """Ask these from now on; at once where they are new."""
        known = self._mixtures.get(key)
        if known is None:
            if not questions:
                return
            known = self._mixtures[key] = _Asked(questions)
            known.task = asyncio.create_task(self._follow(key, known), name=f"queries of {key}")
        if known.questions != questions:
            known.questions = questions
            known.answers = {q: a for q, a in known.answers.items() if q in questions}
            known.sooner.set()

    async def leave(self, key: Key) -> None:
        known = self._mixtures.pop(key, None)
        if known is not None and known.task is not None:
            known.task.cancel()
            await asyncio.gather(known.task, return_exceptions=True)

    async def close(self) -> None:
        for key in list(self._mixtures):
            await self.leave(key)

    async def _follow(self, key: Key, known: _Asked) -> None:
        while True:
            known.sooner.clear()
            try:
                await asyncio.gather(*(self._ask(key, known, q) for q in known.questions))
            except Exception:
                tell_error("queries_failed", mixture=str(key))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every_s if known.questions else None):
                    await known.sooner.wait()

    async def _ask(self, key: Key, known: _Asked, question: Question) -> None:
        at = self._now()  # what it says is of no later time
        try:
            value, problem = read_answer(await self._get(question))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            value, problem = None, f"{question.address}: {error or 'no answer in time'}"
        if question not in known.questions:
            return  # no longer asked
        before, answer = known.answers.get(question), Answer(at, value, problem[:_LONGEST])
        known.answers[question] = answer
        news = before is None or (before.value, before.problem) != (value, answer.problem)
        if news:
            self._changed(key)

    async def _get(self, question: Question) -> Any:
        """Return the JSON of an answer. No redirects: the address is what the Mixture says."""
        url = f"{question.address.rstrip('/')}/api/v1/query"
        async with self._session.get(
            url, params={"query": question.query}, timeout=_TIMEOUT, allow_redirects=False
        ) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > _LARGEST:
                    raise ValueError(f"its answer has more than {_LARGEST} bytes")
            try:
                return json.loads(body)
            except ValueError:
                raise ValueError(f"HTTP {response.status}, and no JSON") from None


def read_answer(said: Any) -> tuple[float | None, str]:
    """Return the number of an instant query's JSON, or None and why there is none."""
    if not isinstance(said, dict) or said.get("status") != "success":
        error = said.get("error") if isinstance(said, dict) else None
        return None, f"the query failed: {error or 'no reason given'}"
    data: dict[str, Any] = said.get("data") or {}
    kind, found = data.get("resultType"), data.get("result") or []
    if kind not in ("vector", "scalar"):
        return None, f"it is a {kind}; the query must give one number"
    if not found:
        return None, "no data"
    if kind == "vector" and len(found) > 1:
        return None, f"{len(found)} series; the query must give one number"
    sample = found[0].get("value") if kind == "vector" else found
    try:
        value = float(sample[1])
    except (TypeError, ValueError, IndexError):
        return None, f"{sample!r} is no sample"
    return (value, "") if math.isfinite(value) else (None, f"it is {sample[1]}, no number")
