"""Real routers and workers asked over HTTP, as Prometheus does: they say what Describe says."""

from __future__ import annotations

import re
import urllib.error
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from moe_core import process_metrics
from moe_router import metrics as router_metrics
from moe_worker import metrics as worker_metrics
from tests.router import process as routers
from tests.router.process import RouterProcess
from tests.support.artifacts import write_expert
from tests.support.dispatching import Caller, dispatch_request
from tests.support.promtool import check_metrics
from tests.support.scrape import ACCEPT, PLAIN, rises, scrape
from tests.support.tables import TableFile, expert, gate, table, version
from tests.worker import process as workers
from tests.worker.process import WorkerProcess

HIDDEN = 32
IDS = ("e0", "e1")
OWN = {"mixture": "tiny"}
GATE = {**OWN, "gate": "gate", "version": "gate-v1"}


@dataclass
class House:
    file: TableFile
    worker: WorkerProcess
    router: RouterProcess

    def call(self, times: int = 1) -> None:
        with Caller(self.router.address) as caller:
            for _ in range(times):
                (answer,) = caller.dispatch(dispatch_request(self.file.table, [[0, 1], [1, 0]]))
                assert not answer.HasField("failure"), answer.failure


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    directory = tmp_path_factory.mktemp("scrapes")
    written = [write_expert(directory, hidden_size=HIDDEN, seed=n) for n in range(2)]
    assigned = [e.assigned(name) for name, e in zip(IDS, written, strict=True)]
    rows = [
        expert(name, version("v1", e.sha256, e.uri)) for name, e in zip(IDS, written, strict=True)
    ]
    content = table(rows, [gate(IDS)], hidden_size=HIDDEN)
    file = TableFile(directory / "table.yaml", content)
    with ExitStack() as stack:
        worker = stack.enter_context(
            workers.spawn(assigned, HIDDEN, mixture="tiny", metrics_detail="Full")
        )
        router = stack.enter_context(
            routers.spawn(mixture="tiny", table_file=str(file.path), workers=worker.link)
        )
        router.wait_until_routable([e.sha256 for e in written])
        it = House(file, worker, router)
        it.call(5)
        yield it


def test_a_router_says_what_describe_says(house: House) -> None:
    with Caller(house.router.address) as caller:
        wrong = dispatch_request(house.file.table, [[0, 1]], gate_sha256="0" * 64)
        assert caller.dispatch(wrong)[0].HasField("failure")
    house.router.describe()  # no traffic of its own
    seen, said = scrape(house.router.metrics), house.router.describe()

    assert seen.value("moeops_router_requests_total", **OWN) == said.requests
    failures = seen.of("moeops_router_failures_total", **OWN)
    assert sum(failures.values()) == said.failed_requests > 0
    assert seen.value("moeops_router_table_epoch", **OWN) == said.epoch
    assert seen.of("moeops_router_links", **OWN) == {
        ("Connecting",): 0,
        ("Live",): 1,
        ("Silent",): 0,
        ("Draining",): 0,
    }
    requests = seen.of("moeops_router_version_requests_total", **OWN)
    assert requests == {(one.expert_id, "v1"): one.requests for one in said.versions}
    rows = seen.of("moeops_router_version_rows_total", **OWN)
    assert rows == {(one.expert_id, "v1"): one.rows for one in said.versions}
    (counters,) = said.gate_counters
    assert seen.value("moeops_gate_requests_total", **GATE) == counters.requests
    assert seen.value("moeops_gate_rows_total", layer="0", **GATE) == counters.layers[0].rows
    pairs = seen.of("moeops_gate_cell_pairs_total", layer="0", **GATE)
    assert list(pairs.values()) == list(counters.layers[0].pairs)
    answered = said.requests - said.failed_requests
    assert seen.value("moeops_router_request_duration_seconds_count", **OWN) == answered
    stages = seen.of("moeops_router_stage_duration_seconds_count", **OWN)
    assert stages == {("combine",): answered, ("gate",): answered, ("workers",): answered}


def test_a_worker_says_what_describe_says(house: House) -> None:
    seen, said = scrape(house.worker.metrics), house.worker.describe().counters

    assert seen.value("moeops_worker_rows_total", **OWN) == said.rows > 0
    assert seen.value("moeops_worker_attempts_total", **OWN) == said.attempts
    assert seen.value("moeops_worker_batches_total", **OWN) == said.batches
    busy_s = seen.value("moeops_worker_busy_seconds_total", **OWN)
    assert busy_s == pytest.approx(said.busy_us / 1e6)
    rows = seen.of("moeops_worker_expert_rows_total", **OWN)
    assert sum(rows.values()) == said.rows
    assert set(rows) == {(name, "v1") for name in IDS}
    layers = seen.of("moeops_worker_layer_rows_total", **OWN)
    assert sum(layers.values()) == said.rows
    assert seen.value("moeops_worker_queue_delay_seconds_count", **OWN) == said.attempts
    stages = seen.of("moeops_worker_expert_stage_seconds", **OWN)
    kinds = ("fetch", "load", "verify", "warm")
    assert set(stages) == {(name, kind, "v1") for name in IDS for kind in kinds}
    phases = seen.of("moeops_worker_expert_phase", **OWN)
    assert phases == {(name, "SERVING", "v1"): 1 for name in IDS}


def test_counters_rise_with_traffic_and_never_fall(house: House) -> None:
    before = scrape(house.router.metrics), scrape(house.worker.metrics)
    house.call(3)
    after = scrape(house.router.metrics), scrape(house.worker.metrics)

    name = "moeops_router_requests_total"
    assert after[0].value(name, **OWN) == before[0].value(name, **OWN) + 3
    for old, new in zip(before, after, strict=True):
        rises(old, new, {name for name in new.names if name.endswith(("_total", "_count"))})


@pytest.mark.parametrize("accept", [ACCEPT, PLAIN])
def test_both_formats_say_the_same_and_only_what_is_described(house: House, accept: str) -> None:
    for address, described in (
        (house.router.metrics, router_metrics.FAMILIES),
        (house.worker.metrics, worker_metrics.FAMILIES),
    ):
        seen = scrape(address, accept)
        names = {n for f in (*described, *process_metrics.FAMILIES) for n in f.names}
        assert seen.names <= names
        labels = {name: set(f.labels) for f in described for name in f.names}
        for name, own in seen.samples:
            assert {key for key, _ in own} - {"le"} == labels.get(name, set()), name


def test_promtool_finds_nothing_wrong(house: House) -> None:
    for address in (house.router.metrics, house.worker.metrics):
        assert check_metrics(scrape(address, PLAIN).text) == ""


def test_a_port_that_is_taken_ends_a_router_with_a_sentence(house: House) -> None:
    taken, own = house.router.metrics, {"mixture": "tiny", "workers": house.worker.link}
    with (
        pytest.raises(AssertionError, match=f"--metrics {re.escape(taken)}: .* in use"),
        routers.spawn(table_file=str(house.file.path), metrics=taken, **own),
    ):
        pass


def test_a_port_that_is_taken_ends_a_worker_with_a_sentence(house: House) -> None:
    taken = house.worker.metrics
    with (
        pytest.raises(AssertionError, match=f'reason="--metrics {re.escape(taken)}: .* in use"'),
        workers.spawn([], HIDDEN, metrics=taken),
    ):
        pass


def test_none_is_no_port_and_nothing_else_is_served(house: House) -> None:
    with routers.spawn(
        mixture="tiny", table_file=str(house.file.path), workers=house.worker.link, metrics="none"
    ) as router:
        assert router.metrics == ""
    with pytest.raises(urllib.error.HTTPError, match="404"):
        scrape(f"{house.router.metrics}/else")
