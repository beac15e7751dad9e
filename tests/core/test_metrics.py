"""Metrics as text: what prometheus-client reads of it is what was given."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import choose_encoder

from moe_core.exposition import SAMPLES_AT_ONCE, pieces
from moe_core.metrics import Exemplar, Family, Histogram, Kind, Point, one
from moe_core.metrics_port import CannotListen, MetricsPort
from moe_core.metrics_settings import Detail, read_address, read_detail
from moe_core.process_metrics import ProcessMetrics
from moe_core.version_names import version_names
from tests.support.scrape import ACCEPT, PLAIN, Scraped, read
from tests.support.tables import expert, version

ROWS = Family("moeops_rows", Kind.COUNTER, 'Rows, "good" and\\or bad.\nAll.', ("expert",))
TOOK = Family("moeops_took_seconds", Kind.HISTOGRAM, "Time.", ("stage",), "seconds")
ABOUT = Family("moeops_about", Kind.INFO, "What it is.", ("name",))


@dataclass
class Given:
    blocks: list[tuple[Family, Iterable[Point]]]

    def collect(self) -> Iterable[tuple[Family, Iterable[Point]]]:
        return self.blocks


def taken(*values: float) -> Histogram:
    histogram = Histogram((0.25, 1.0))
    for value in values:
        histogram.observe(value)
    return histogram


@pytest.mark.parametrize("om", [True, False])
def test_what_is_read_is_what_was_given(om: bool) -> None:
    seen = read(
        Given(
            [
                (ROWS, [(("e0",), 3), (("e1",), 2.5)]),
                (TOOK, one(taken(0.25, 0.3, 1.5), "gate")),
                (ABOUT, one(1, "x")),
            ]
        ),
        om=om,
    )

    assert seen.of("moeops_rows_total") == {("e0",): 3, ("e1",): 2.5}
    buckets = {"0.25": 1, "1.0": 2, "+Inf": 3}
    assert {le: n for (le, _), n in seen.of("moeops_took_seconds_bucket").items()} == buckets
    assert seen.value("moeops_took_seconds_sum", stage="gate") == pytest.approx(2.05)
    assert seen.value("moeops_took_seconds_count", stage="gate") == 3
    assert seen.value("moeops_about_info", name="x") == 1
    assert seen.types["moeops_rows"] == "counter"


@pytest.mark.parametrize("om", [True, False])
def test_an_exemplar_is_told_with_the_bucket_that_its_value_is_in(om: bool) -> None:
    histogram = taken(0.25, 0.3, 1.5)
    for value, trace in ((0.3, "old"), (0.5, "new"), (1.5, "last")):
        histogram.mark(Exemplar(value, {"trace_id": trace}, 1_790_000_000.25))
    copied = histogram.copy()
    histogram.mark(Exemplar(0.1, {"trace_id": "later"}, 0.0))

    told = read(Given([(TOOK, one(copied, "gate"))]), om=om).exemplars
    found = {
        dict(labels)["le"]: (seen.labels, seen.value, float(seen.timestamp or 0))
        for (_, labels), seen in told.items()
    }
    expected = {
        "1.0": ({"trace_id": "new"}, 0.5, 1_790_000_000.25),
        "+Inf": ({"trace_id": "last"}, 1.5, 1_790_000_000.25),
    }
    assert found == (expected if om else {}), "plain text has no way to say it"


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=20),
    st.one_of(st.integers(0, 1 << 60), st.floats(allow_nan=False)),
)
def test_any_label_and_any_number_comes_through(label: str, value: float) -> None:
    seen = read(Given([(Family("a", Kind.GAUGE, "", ("x",)), one(value, label))]))

    # Prometheus knows no other numbers.
    assert seen.samples == {("a", frozenset({("x", label)})): float(value)}


def test_nan_comes_through() -> None:
    assert math.isnan(read(Given([(Family("a", Kind.GAUGE, ""), one(math.nan))])).value("a"))


@pytest.mark.parametrize("accept", [ACCEPT, PLAIN])
def test_a_piece_ends_with_the_point_that_fills_it_and_heads_and_end_come_once(
    accept: str,
) -> None:
    cells = [Family(f"a{n}", Kind.GAUGE, "Cells.", ("x",)) for n in range(5)]
    sizes = [0, 1, 100, 250, 40]
    blocks: list[tuple[Family, Iterable[Point]]] = [
        (family, [((str(n),), n) for n in range(size)])
        for family, size in zip(cells, sizes, strict=True)
    ]
    blocks.append((TOOK, [((str(n),), taken(0.5)) for n in range(30)]))
    encode, _ = choose_encoder(accept)

    parts = [part.decode() for part in pieces(Given(blocks), encode)]

    lines = [[x for x in part.splitlines() if not x.startswith("#")] for part in parts]
    told = [len(some) for some in lines]
    widest = len(taken().counts) + 2
    assert all(SAMPLES_AT_ONCE <= size < SAMPLES_AT_ONCE + widest for size in told[:-1])
    assert sum(told) == sum(sizes) + 30 * widest
    text = "".join(parts)
    for family in (*cells, TOOK):
        assert text.count(f"# TYPE {family.name} ") == 1
        assert text.count(f"# HELP {family.name} ") == 1
    assert text.count("# EOF\n") == (accept == ACCEPT)
    seen = Scraped.read(text, om=accept == ACCEPT)
    assert seen.of("a3") == {(str(n),): n for n in range(250)}


@pytest.mark.parametrize("om", [True, False])
def test_where_nothing_is_told_there_is_nothing_but_the_end(om: bool) -> None:
    assert read(Given([]), om=om).text == ("# EOF\n" if om else "")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /metrics?name=x HTTP/1.0\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nAccept: text/plain;version=new\r\n\r\n", 400),
    ],
)
async def test_the_port_answers_what_it_is_asked(request_: bytes, status: int) -> None:
    port = MetricsPort(Given([(ROWS, one(3, "e0"))]))
    number = await port.listen("127.0.0.1", 0, "--metrics")
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", number)
        writer.write(request_)
        answer = (await reader.read()).decode()
        writer.close()
    finally:
        port.close()

    assert answer.startswith(f"HTTP/1.1 {status} ")
    body = answer.partition("\r\n\r\n")[2]
    assert f"Content-Length: {len(body)}\r\n" in answer
    if status == 200:
        assert Scraped.read(body, om=False).value("moeops_rows_total", expert="e0") == 3


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (ACCEPT, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (PLAIN, "text/plain; version=0.0.4; charset=utf-8"),
        ("", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
async def test_who_asks_for_openmetrics_gets_it(accept: str, content_type: str) -> None:
    port = MetricsPort(Given([]))
    number = await port.listen("127.0.0.1", 0, "--metrics")
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", number)
        writer.write(f"GET /metrics HTTP/1.1\r\naccept: {accept}\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
    finally:
        port.close()

    assert f"\r\nContent-Type: {content_type}" in answer


async def test_a_taken_port_is_said_in_words() -> None:
    first, second = MetricsPort(Given([])), MetricsPort(Given([]))
    number = await first.listen("127.0.0.1", 0, "--metrics")
    try:
        with pytest.raises(CannotListen, match=f"^--metrics :{number}: .* in use$"):
            await second.listen("127.0.0.1", number, f"--metrics :{number}")
    finally:
        first.close()


async def test_others_go_first_while_much_is_told() -> None:
    """Between two parts of a long answer, what else is due on the loop is done."""
    turns: list[int] = []

    def points() -> Iterable[Point]:
        for number in range(1000):
            turns.append(number)
            yield (str(number),), number

    port, others = MetricsPort(Given([(ROWS, points())])), list[int]()
    number = await port.listen("127.0.0.1", 0, "--metrics")

    async def count() -> None:
        while len(turns) < 1000:
            others.append(len(turns))
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", number)
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        await reader.read()
        writer.close()
    finally:
        port.close()
    await counting

    assert max(b - a for a, b in itertools.pairwise(others)) <= 100


def test_the_process_says_what_it_uses() -> None:
    seen = read(ProcessMetrics())

    assert seen.names == {
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_start_time_seconds",
        "process_open_fds",
        "process_max_fds",
    }
    assert seen.value("process_resident_memory_bytes") > 0


def test_two_artifacts_with_one_name_are_told_apart() -> None:
    one_, two = version("v1", "a" * 64), version("v1", "b" * 64)
    row = replace(expert("e0", one_), candidate=two)

    assert version_names(row) == {"a" * 64: "v1@aaaaaaaaaa", "b" * 64: "v1@bbbbbbbbbb"}
    assert version_names(expert("e0", one_)) == {"a" * 64: "v1"}


@pytest.mark.parametrize(
    ("text", "found"),
    [("0.0.0.0:7002", ("0.0.0.0", 7002)), ("[::]:0", ("::", 0)), ("none", None)],
)
def test_an_address_is_read(text: str, found: tuple[str, int] | None) -> None:
    assert read_address(text) == found


@pytest.mark.parametrize("text", ["7002", "host:", ":7002", "host:70000", "unix:/x", ""])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="it must be HOST:PORT, or none"):
        read_address(text)


def test_a_detail_is_read() -> None:
    assert read_detail("Full") is Detail.FULL
    with pytest.raises(ValueError, match="it must be one of Rollup, Full"):
        read_detail("full")
