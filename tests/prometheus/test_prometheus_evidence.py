"""A real Prometheus is asked of a candidate and of stable, and what it says is judged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Gauge

from moe_core.rollout import Outcome, Rollout, Version, WeightSince
from moe_core.rows import ExpertRow, Role
from moe_core.table import Failover, Table
from moe_operator.cache import Key
from moe_operator.judgement import Judgement
from moe_operator.prometheus import Prometheus
from moe_operator.questions import prometheus_findings, questions
from moe_operator.spec import ExpertSpec, MixtureSpec
from moe_operator.world import World
from tests.operator.plan.bodies import MIXTURE, NAMESPACE, expert, mixture, sha
from tests.prometheus.server import PrometheusServer, exporting, of_exporter

PROGRAM = Path(__file__).resolve().parents[2] / ".moe" / "bin" / "prometheus"
KEY = Key(NAMESPACE, MIXTURE)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
STABLE = Version("v1", sha("e0", "v1"), "file:///v1")
TARGET = Version("v2", sha("e0", "v2"), "file:///v2")
WEIGHTS = (WeightSince(5, 25),)
ROLLOUT = Rollout(2, TARGET, 1, NOW.isoformat(), Outcome.PROGRESSING, "", "s", WEIGHTS)
ROW = ExpertRow("e0", "e0", Role.ROUTED, (0,), None, STABLE, TARGET, rollout=ROLLOUT)
TABLE = Table(MIXTURE, "", 5, 64, 2, "BFloat16", "", Failover(), (), (ROW,))

LABELS = ("namespace", "mixture", "expert", "version", "sha256")
OF_VERSION = (
    '{namespace="{{namespace}}", mixture="{{mixture}}", expert="{{expert}}", '
    'version="{{version}}", sha256="{{sha256}}"}'
)
ERRORS = f"errors{OF_VERSION} / requests{OF_VERSION}"


@dataclass(frozen=True, slots=True)
class Exported:
    """What is scraped of both versions, and the port where it is."""

    errors: Gauge
    requests: Gauge
    port: int

    def set(self, version: Version, errors: float, requests: float = 100) -> None:
        labels = (NAMESPACE, MIXTURE, "e0", version.version, version.sha256)
        self.errors.labels(*labels).set(errors)
        self.requests.labels(*labels).set(requests)


@pytest.fixture(scope="module")
def exported() -> Iterator[Exported]:
    registry = CollectorRegistry()
    errors = Gauge("errors", "Errors seen.", LABELS, registry=registry)
    requests = Gauge("requests", "Requests seen.", LABELS, registry=registry)
    with exporting(registry) as port:
        found = Exported(errors, requests, port)
        found.set(STABLE, 4)
        found.set(TARGET, 3)
        yield found


def started(exported: Exported, folder: Path) -> PrometheusServer:
    if not PROGRAM.exists():
        pytest.fail("there is no prometheus to test with; run: make binaries")
    return PrometheusServer(PROGRAM, folder, of_exporter(exported.port))


@pytest.fixture(scope="module")
def server(
    exported: Exported, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrometheusServer]:
    with started(exported, tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@dataclass(frozen=True, slots=True)
class Asking:
    """An Expert's query, asked by the operator's own asker as the plan wants it."""

    mixture: MixtureSpec
    expert: ExpertSpec
    samples: Prometheus
    news: asyncio.Queue[Key]

    def judgement(self) -> Judgement:
        answers = self.samples.answers(KEY)
        return Judgement(tuple(prometheus_findings(ROW, self.mixture, self.expert, answers)))

    async def until(self, reached: Callable[[Judgement], bool]) -> Judgement:
        """Return the first judgement that is so; looks again whenever an answer is another."""
        while not reached(judgement := self.judgement()):
            assert await self.news.get() == KEY
        return judgement


@asynccontextmanager
async def asking(address: str, query: str, **more: Any) -> AsyncIterator[Asking]:
    asked = {"name": "errors", "query": query, "maxIncreasePercent": 50, **more}
    spec = ExpertSpec.from_body(expert("e0", rollout={"analysis": {"prometheus": [asked]}}))
    of = MixtureSpec.from_body(mixture(prometheus={"address": address}))
    world = World(NAMESPACE, MIXTURE, of, None, (spec,), (), (), (), (), (), (), ())
    async with aiohttp.ClientSession() as session:
        news = asyncio.Queue[Key]()
        samples = Prometheus(session, news.put_nowait, lambda: NOW, every_s=0.05)
        samples.follow(KEY, questions(world, TABLE))
        try:
            yield Asking(of, spec, samples, news)
        finally:
            await samples.close()


def reason(judgement: Judgement) -> str:
    (finding,) = judgement.findings
    return finding.verdict.reason


def is_decided(judgement: Judgement) -> bool:
    return judgement.missing(100) is None


def is_answered(judgement: Judgement) -> bool:
    return "not answered yet" not in reason(judgement)


async def test_a_candidate_passes_and_is_objected_to_when_its_value_is_raised(
    exported: Exported, server: PrometheusServer
) -> None:
    async with asking(server.url, ERRORS) as asked:
        passed = await asked.until(is_decided)
        limit = "of stable; maxIncreasePercent is 50"
        assert (passed.objection, reason(passed)) == (None, f"errors is 0.03 against 0.04 {limit}")
        exported.set(TARGET, 8)
        failed = await asked.until(lambda judgement: judgement.objection is not None)
        assert reason(failed) == f"errors is 0.08 against 0.04 {limit}"


async def test_stable_may_have_a_query_of_its_own(server: PrometheusServer) -> None:
    async with asking(server.url, "scalar(vector(5))", stableQuery="vector(4)") as asked:
        passed = await asked.until(is_decided)
        assert reason(passed).startswith("errors is 5 against 4 of stable")


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        pytest.param(f"absent_one{OF_VERSION}", "errors: no data", id="no data"),
        pytest.param(f"{ERRORS} * 0 / 0", "errors: it is NaN, no number", id="0 divided by 0"),
        pytest.param(f"{ERRORS} / 0", "errors: it is +Inf, no number", id="divided by 0"),
        pytest.param(
            'errors{expert="{{expert}}"}',
            "errors: 2 series; the query must give one number",
            id="both versions",
        ),
        pytest.param(
            f"errors{OF_VERSION}[1m]",
            "errors: it is a matrix; the query must give one number",
            id="a range",
        ),
        pytest.param(
            f"errors{OF_VERSION} /",
            'errors: the query failed: invalid parameter "query": ',
            id="a mistake in the query",
        ),
    ],
)
async def test_what_is_no_number_is_neither_for_nor_against(
    query: str, sentence: str, server: PrometheusServer
) -> None:
    async with asking(server.url, query, stableQuery="vector(1)") as asked:
        judgement = await asked.until(is_answered)
        assert reason(judgement).startswith(sentence)
        assert judgement.objection is None
        assert not is_decided(judgement)


async def test_of_stable_it_is_said_too(server: PrometheusServer) -> None:
    async with asking(server.url, "vector(1)", stableQuery=f"absent_one{OF_VERSION}") as asked:
        judgement = await asked.until(lambda found: reason(found) == "errors of stable: no data")
        assert judgement.objection is None
        assert not is_decided(judgement)


async def test_a_prometheus_that_is_gone_no_longer_tells(
    exported: Exported, tmp_path: Path
) -> None:
    with started(exported, tmp_path) as server:
        async with asking(server.url, ERRORS) as asked:
            await asked.until(is_decided)
            await asyncio.to_thread(server.stop)
            gone = f"errors: {server.url}: "
            judgement = await asked.until(lambda found: reason(found).startswith(gone))
            assert judgement.objection is None
            assert not is_decided(judgement)
