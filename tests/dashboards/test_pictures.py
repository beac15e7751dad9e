"""Dashboards are read from their JSON, and drawn as what they say."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.pictures import choices, svg
from dashboards.pictures.lines import Named, draw_lines, draw_states
from dashboards.pictures.page import draw
from dashboards.pictures.prometheus import Series, Span
from dashboards.pictures.sheets import Kind, Panel, Target, read
from dashboards.pictures.svg import Box
from dashboards.pictures.tables import draw_matrix, draw_table, merged
from dashboards.pictures.units import axis, shown
from dashboards.places import FOLDER
from tests.dashboards.made_up import SPAN, answered

SHEETS = {path.stem: read(json.loads(path.read_text())) for path in FOLDER.glob("*.json")}
BOX = Box(0, 0, 400, 200)
SHORT = Span(0, 100, 10)


def panel(kind: Kind, *targets: Target, unit: str = "none", coloured: str = "") -> Panel:
    steps = ((-math.inf, "green"), (2.0, "red"))
    columns = frozenset({coloured} - {""})
    return Panel(kind, "P", "", 0, 0, 8, 8, unit, targets, steps, columns, {"0": "no", "1": "yes"})


def pictured(name: str, many: int) -> str:
    sheet = SHEETS[name]
    values = {choice.name: "x" for choice in sheet.choices}
    return draw(sheet, values, answered(sheet, many), SPAN)


@pytest.mark.parametrize("name", sorted(SHEETS))
@pytest.mark.parametrize("many", [0, 1, 20])
def test_a_dashboard_is_drawn_whole_and_small(name: str, many: int) -> None:
    text = pictured(name, many)
    found = {title.text for title in ET.fromstring(text).iter("{http://www.w3.org/2000/svg}title")}

    assert len(text.encode()) < 300_000
    assert {p.description for p in SHEETS[name].panels if p.description} <= found


@pytest.mark.parametrize("name", sorted(SHEETS))
def test_panels_lie_beside_each_other(name: str) -> None:
    cells = [
        (x, y)
        for p in SHEETS[name].panels
        for x in range(p.x, p.x + p.width)
        for y in range(p.y, p.y + p.height)
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_every_unit_colour_and_kind_of_the_dashboards_is_known() -> None:
    panels = [p for sheet in SHEETS.values() for p in sheet.panels]

    assert {p.kind for p in panels} == set(Kind)
    assert {colour for p in panels for _, colour in p.steps} <= svg.COLOURS.keys()
    assert {p.unit for p in panels} == {
        "none", "short", "percentunit", "s", "rowsps", "reqps", "ops", "bytes",
    }  # fmt: skip


def test_an_empty_panel_says_when_that_is_well() -> None:
    assert "No data" in pictured("failover", 0)
    assert "Empty until a row is answered by a degraded rung." in pictured("failover", 0)


@pytest.mark.parametrize(
    ("query", "values", "expected"),
    [
        pytest.param('m{a=~"$job"}', {"job": ".+"}, 'm{a=~".+"}', id="a variable"),
        pytest.param(
            "rate(m[$__rate_interval])", choices.built_in(60, "20s"), "rate(m[20s])", id="built in"
        ),
        pytest.param('label_replace(m, "a", "$1", "b", "")', {}, None, id="a group is none"),
    ],
)
def test_variables_are_put_in(query: str, values: Mapping[str, str], expected: str | None) -> None:
    assert choices.filled(query, values) == (expected or query)


def test_a_variable_without_a_value_is_named() -> None:
    with pytest.raises(ValueError, match=r"\$job has no value; there are other"):
        choices.filled("m{$job}", {"other": "x"})


def test_only_label_values_are_known_as_variables() -> None:
    variable = {"name": "v", "type": "query", "query": "metrics(x)"}
    body = {"title": "", "description": "", "panels": [], "templating": {"list": [variable]}}

    with pytest.raises(ValueError, match=r"variable v is 'metrics\(x\)'; only label_values"):
        read(body)


@pytest.mark.parametrize(
    ("legend", "expected"),
    [
        pytest.param("{{a}} at {{ b }}", "1 at 2", id="labels"),
        pytest.param("p99", "p99", id="as it stands"),
        pytest.param("{{gone}}x", "x", id="a label that is not there"),
        pytest.param("", 'm{a="1", b="2"}', id="none"),
    ],
)
def test_a_series_is_called_as_the_legend_says(legend: str, expected: str) -> None:
    assert choices.named(legend, {"__name__": "m", "a": "1", "b": "2"}) == expected


def test_names_sort_as_people_count() -> None:
    assert sorted(["e10", "e2", "gate", "10", "9"], key=choices.natural) == [
        "9",
        "10",
        "e2",
        "e10",
        "gate",
    ]


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        pytest.param(0.0, "s", "0 s", id="no time"),
        pytest.param(0.0025, "s", "2.5 ms", id="milliseconds"),
        pytest.param(2e-6, "s", "2 µs", id="microseconds"),
        pytest.param(90.0, "s", "1.5 min", id="minutes"),
        pytest.param(7200.0, "s", "2 h", id="hours"),
        pytest.param(0.257, "percentunit", "25.7%", id="a share"),
        pytest.param(1.5 * 2**20, "bytes", "1.5 MiB", id="bytes"),
        pytest.param(12_340.0, "reqps", "12.3k req/s", id="requests"),
        pytest.param(1234.0, "none", "1234", id="a count"),
        pytest.param(1.0, "none", "yes", id="a text instead"),
        pytest.param(math.inf, "s", "inf", id="infinite"),
    ],
)
def test_a_value_is_said_in_its_unit(value: float, unit: str, expected: str) -> None:
    assert shown(value, unit, {"1": "yes"} if expected == "yes" else None) == expected


@given(
    st.floats(min_value=1e-9, max_value=1e15),
    st.sampled_from(["none", "s", "bytes", "percentunit"]),
)
def test_an_axis_begins_at_zero_and_holds_the_highest(highest: float, unit: str) -> None:
    marks = axis(highest, unit)

    assert marks[0] == 0
    assert marks[-1] >= highest * (1 - 1e-6)
    assert 3 <= len(marks) <= 6
    assert all(a < b for a, b in pairwise(marks))


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=30))
def test_what_is_left_out_of_a_line_lies_on_it(points: list[tuple[int, int]]) -> None:
    kept = svg.straightened(points)

    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    for x, y in points:
        assert any(
            (x - a[0]) * (b[1] - a[1]) == (y - a[1]) * (b[0] - a[0])
            and min(a[0], b[0]) <= x <= max(a[0], b[0])
            and min(a[1], b[1]) <= y <= max(a[1], b[1])
            for a, b in pairwise([*kept, kept[-1]])
        )


def test_a_gap_and_nan_part_a_line() -> None:
    points = ((0.0, 1.0), (10.0, 2.0), (20.0, math.nan), (30.0, 1.0), (40.0, 2.0), (70.0, 1.0))
    lines = panel(Kind.LINES, Target("m", "", False))
    drawn = "".join(draw_lines(BOX, lines, [Named("a", "#000", Series({}, points))], SHORT))

    (path,) = ET.fromstring(f"<g>{drawn}</g>").iter("path")
    assert path.attrib["d"].count("M") == 3


def test_states_are_bars_from_change_to_change() -> None:
    points = tuple((float(t), 3.0 if 30 <= t < 60 else 1.0) for t in range(0, 101, 10))
    states = panel(Kind.STATES, Target("m", "", False))
    drawn = "".join(draw_states(BOX, states, [Named("a", "#000", Series({}, points))], SHORT))
    bars = list(ET.fromstring(f"<g>{drawn}</g>").iter("rect"))

    assert [bar.attrib["fill"] for bar in bars] == [
        svg.COLOURS[colour] for colour in ("green", "red", "green")
    ]
    edges = [(int(bar.attrib["x"]), int(bar.attrib["width"])) for bar in bars]
    assert edges[0][0] + edges[0][1] == edges[1][0]
    assert edges[1][0] + edges[1][1] == edges[2][0]


def test_what_queries_say_of_the_same_labels_is_one_row() -> None:
    table = panel(Kind.TABLE, Target("a", "A", True), Target("b", "B", True), coloured="A")
    one, two = {"name": "e10"}, {"name": "e2"}
    answers = [[Series(one, ((0, 1.5),)), Series(two, ((0, 3.0),))], [Series(one, ((0, 2.5),))]]

    assert merged(table, answers) == (
        ("name",),
        ({"name": "e2", "A": 3.0}, {"name": "e10", "A": 1.5, "B": 2.5}),
    )
    drawn = "".join(draw_table(BOX, table, answers))
    assert [r.attrib["fill"] for r in ET.fromstring(f"<g>{drawn}</g>").iter("rect")] == [
        svg.COLOURS["red"],
        svg.COLOURS["green"],
    ]


def test_rows_without_room_are_counted() -> None:
    table = panel(Kind.TABLE, Target("a", "A", True))
    answers = [[Series({"name": f"e{i}"}, ((0, 1.5),)) for i in range(50)]]
    drawn = "".join(draw_table(BOX, table, answers))

    shown_rows = drawn.count(">e")
    assert f"+ {50 - shown_rows} more" in drawn


def test_a_cell_of_a_matrix_lies_where_its_layer_and_expert_are() -> None:
    matrix = panel(Kind.MATRIX, Target("a", "", True), unit="percentunit")
    cells = [Series({"layer": str(i // 3), "expert": f"e{i % 3}"}, ((0, 0.1),)) for i in range(6)]
    drawn = "".join(draw_matrix(BOX, matrix, cells))
    places = {(r.attrib["x"], r.attrib["y"]) for r in ET.fromstring(f"<g>{drawn}</g>").iter("rect")}

    assert len(places) == 6
    assert (len({x for x, _ in places}), len({y for _, y in places})) == (3, 2)


def test_texts_are_escaped() -> None:
    assert "&lt;b&gt; &amp;" in svg.text((0, 0), "<b> &")
    assert svg.cut("abcdefgh", 30, 10) == "abcd…"
