"""Prometheus asked over HTTP, by a small server that speaks its API: numbers, and every trouble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from moe_operator.cache import Key
from moe_operator.prometheus import Prometheus, Unasked, read_answer
from moe_operator.world import Answer, Question

TINY = Key("default", "tiny")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def vector(*values: str) -> dict[str, Any]:
    result = [{"metric": {"n": str(n)}, "value": [1.0, value]} for n, value in enumerate(values)]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


@dataclass(slots=True)
class Server:
    """Answers by query; what it does not know is an error, as a query with a mistake is."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    address: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        query = request.query["query"]
        self.asked.put_nowait(query)
        match self.answers.get(query):
            case None:
                said = {"status": "error", "errorType": "bad_data", "error": "parse error"}
                return web.json_response(said, status=400)
            case "moved":
                raise web.HTTPFound("/elsewhere")
            case "html":
                return web.Response(text="<html>", status=502)
            case "huge":
                return web.Response(text="x" * (2 << 20))
            case said:
                return web.json_response(said)


@asynccontextmanager
async def serving(**answers: Any) -> AsyncIterator[Server]:
    server = Server(dict(answers))
    app = web.Application()
    app.router.add_get("/prefix/api/v1/query", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.address = f"http://{host}:{port}/prefix"
    try:
        yield server
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("query", "value", "words"),
    [
        pytest.param("one", 0.25, "", id="a vector of one"),
        pytest.param("scalar", 3.0, "", id="a scalar"),
        pytest.param("none", None, "no data", id="no series"),
        pytest.param("two", None, "2 series; the query must give one number", id="two series"),
        pytest.param("nan", None, "it is NaN, no number", id="0 divided by 0"),
        pytest.param("wrong", None, "the query failed: parse error", id="a mistake in the query"),
        pytest.param("moved", None, "HTTP 302, and no JSON", id="a redirect is not followed"),
        pytest.param("html", None, "HTTP 502, and no JSON", id="something in between"),
        pytest.param("huge", None, "more than 1048576 bytes", id="an answer without end"),
    ],
)
async def test_an_answer_is_a_number_or_a_sentence(
    query: str, value: float | None, words: str
) -> None:
    answers = {
        "one": vector("0.25"),
        "scalar": {"status": "success", "data": {"resultType": "scalar", "result": [1, "3"]}},
        "none": vector(),
        "two": vector("1", "2"),
        "nan": vector("NaN"),
        "moved": "moved",
        "html": "html",
        "huge": "huge",
    }
    async with serving(**answers) as server, aiohttp.ClientSession() as session:
        news = asyncio.Queue[Key]()
        samples = Prometheus(session, news.put_nowait, lambda: NOW)
        asked = (Question(server.address, query),)
        samples.follow(TINY, asked)
        assert await news.get() == TINY
        answer = samples.answers(TINY)[asked[0]]
        assert (answer.at, answer.value) == (NOW, value)
        assert words in answer.problem
        await samples.close()


async def test_news_asks_for_a_look_and_what_is_no_longer_asked_is_forgotten() -> None:
    news = asyncio.Queue[Key]()
    async with serving(a=vector("1"), b=vector("2")) as server, aiohttp.ClientSession() as session:
        samples = Prometheus(session, news.put_nowait, lambda: NOW, every_s=0.01)
        samples.follow(TINY, (Question(server.address, "a"),))
        assert [await server.asked.get() for _ in range(4)] == ["a"] * 4
        assert news.qsize() == 1, "the same number is no news"
        b = Question(server.address, "b")
        samples.follow(TINY, (b,))
        assert [await news.get() for _ in range(2)] == [TINY, TINY]
        assert samples.answers(TINY) == {b: Answer(NOW, 2.0)}
        samples.follow(TINY, ())
        assert samples.answers(TINY) == {}
        await asyncio.sleep(0.05)
        asked = server.asked.qsize()
        await asyncio.sleep(0.05)
        assert server.asked.qsize() == asked, "nobody is asked while nothing is wanted"
        await samples.leave(TINY)
        await samples.close()


async def test_nobody_there_is_an_answer_without_a_number() -> None:
    async with aiohttp.ClientSession() as session:
        news = asyncio.Queue[Key]()
        samples = Prometheus(session, news.put_nowait, lambda: NOW)
        asked = (Question("http://127.0.0.1:1", "up"),)
        samples.follow(TINY, asked)
        assert await news.get() == TINY
        answer = samples.answers(TINY)[asked[0]]
        assert answer.value is None
        assert answer.problem.startswith("http://127.0.0.1:1: ")
        await samples.close()


@pytest.mark.parametrize(
    "said",
    [
        [],
        {"status": "success"},
        {"status": "success", "data": {"resultType": "matrix", "result": [1]}},
        {"status": "success", "data": {"resultType": "vector", "result": [{}]}},
        {"status": "success", "data": {"resultType": "scalar", "result": [1, "x"]}},
    ],
)
def test_whatever_is_no_sample_is_said(said: Any) -> None:
    value, problem = read_answer(said)
    assert value is None
    assert problem


async def test_without_queries_nobody_is_asked() -> None:
    nobody = Unasked()
    nobody.follow(TINY, (Question("http://x", "up"),))
    assert nobody.answers(TINY) == dict[Question, Answer]()
    await nobody.leave(TINY)
