"""`kubectl moe routing`: from what routers counted to what a person reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_moe import heat
from kubectl_moe.arguments import parser
from kubectl_moe.cluster import ClusterError, NotFound
from kubectl_moe.gate_loads import Load, Of, Reading, between, total
from kubectl_moe.health import Exit
from kubectl_moe.names import UsageError
from kubectl_moe.routing_view import Routed
from tests.kubectl import bodies
from tests.kubectl.terminal import Terminal

EXPERTS = ("e0", "e1", "e2", "e3")
EVEN, SKEWED = Load(8, (4, 4, 4, 4), 0, 8, 16.0), Load(8, (8, 6, 2, 0), 4)


def variant(name: str, experts: Sequence[str] = EXPERTS) -> dict[str, Any]:
    return {"version": name, "sha256": bodies.sha(name), "experts": list(experts), "topK": 2}


def table(**versions: dict[str, Any]) -> dict[str, Any]:
    rows = [
        {"name": "gate", "layers": [0, 1], "stable": variant("g1"), **versions},
        {"name": "late", "layers": [2], "stable": variant("late1")},
    ]
    return {"kind": "RoutingTable", "metadata": {"name": "tiny"}, "spec": {"gates": rows}}


def router(name: str, phase: str = "Running") -> dict[str, Any]:
    labels = {"moeops.dev/mixture": "tiny", "moeops.dev/component": "router"}
    metadata = {"name": name, "labels": labels}
    return {"kind": "Pod", "metadata": metadata, "status": {"phase": phase}}


def of(version: str = "g1", layer: int = 0, gate: str = "gate", *, shadow: bool = False) -> Of:
    return Of(gate, bodies.sha(version), layer, shadow)


@pytest.fixture
def terminal() -> Terminal:
    """Two routers that count, and one that has not begun to run."""
    terminal = Terminal(
        bodies.mixture(), table(), router("r1"), router("r2"), router("r3", "Pending")
    )
    terminal.routers.counted = {"r1": {of(): EVEN, of(layer=1): SKEWED}, "r2": {of(): EVEN}}
    return terminal


def test_a_map_has_a_line_for_each_layer_over_all_routers(terminal: Terminal) -> None:
    assert terminal.run("routing tiny") is Exit.HEALTHY
    assert terminal.lines()[:5] == [
        "tiny: 2 routers, since their start",
        "",
        "gate: g1 (stable), top 2 of 4",
        "LAYER  ROWS LOAD BITS GATE OVER MOST",
        "    0    16 ▄▄▄▄ 2.00 2.00 0.0% e0 50%",
    ]
    assert terminal.lines()[5] == "    1     8 █▆▂· 1.41    -  25% e0 100%"
    assert "late: late1 (stable), top 2 of 4: no rows" in terminal.lines()
    assert "▄ an even share" in terminal.out.getvalue()
    assert terminal.routers.asked == [(bodies.sha("g1"), bodies.sha("late1"))]
    assert terminal.routers.closed


def test_a_layer_lists_its_experts_and_says_what_is_left_out(terminal: Terminal) -> None:
    terminal.run("routing tiny --layer 1 --top 2")
    assert [" ".join(line.split()) for line in terminal.lines()[2:]] == [
        "gate: g1 (stable), top 2 of 4: layer 1, 8 rows",
        "load 1.41 of 2.00 bits, overflow 25%",
        "EXPERT ROWS OF ROWS OF EVEN",
        f"e0 8 100% 2.00× {'█' * 40}",
        f"e1 6 75% 1.50× {'█' * 30}",
        "2 more experts, together 12% of the load; --top shows them",
        "",
        "late: late1 (stable), top 2 of 4: no rows in layer 1",
    ]


def test_the_least_even_layers_are_shown_and_the_others_counted(terminal: Terminal) -> None:
    terminal.run("routing tiny --top 1 --gate gate")
    text = terminal.out.getvalue()
    assert "\n    1     8 █▆▂·" in text
    assert "\n    0 " not in text
    assert "1 more layers, which are more even; --top or --layer shows them" in text
    assert "late" not in text


def test_a_window_is_the_difference_of_two_readings(terminal: Terminal) -> None:
    counted = terminal.routers.counted

    def later() -> None:
        if terminal.now:
            counted["r1"][of()] = EVEN.plus(SKEWED)
            counted["r2"] = {of(): Load(3, (3, 3, 0, 0))}
            terminal.routers.incarnations["r2"] = "another"

    terminal.routers.before_reading = later
    terminal.run("routing tiny --window 30s -o json")
    said = json.loads(terminal.out.getvalue())
    assert (said["routers"], said["windowSeconds"]) == (2, 30.0)
    (layer,) = said["gates"][0]["layers"]
    assert (layer["layer"], layer["rows"], layer["pairs"]) == (0, 11, [11, 9, 2, 0])
    assert layer["overflowPairs"] == 4
    assert layer["gateEntropyBits"] is None


def test_watching_shows_what_came_lately_and_forgets_what_is_older(terminal: Terminal) -> None:
    def count() -> None:
        rows = round(100 * terminal.now)
        terminal.routers.counted = {"r1": {of(): Load(rows, (rows, rows, 0, 0))}}
        if terminal.now >= 15:
            raise KeyboardInterrupt

    terminal.routers.before_reading = count
    with pytest.raises(KeyboardInterrupt):
        terminal.run("routing tiny --gate gate -w")
    told = [line for line in terminal.lines() if line.startswith(("tiny: ", "    0"))]
    assert told[:2] == [
        "tiny: 1 router, last 1 s",
        "    0   100 ██·· 1.00    - 0.0% e0 100%",
    ]
    assert told[-2:] == [
        "tiny: 1 router, last 10 s",
        "    0  1000 ██·· 1.00    - 0.0% e0 100%",
    ]
    assert terminal.routers.closed


def test_a_candidate_in_the_shadow_is_told_from_what_serves(terminal: Terminal) -> None:
    terminal.cluster.bodies[1] = table(candidate=variant("g2", ("e3", "e1")))
    scored = Load(2, (2, 2), 0, 2, 1.0)
    terminal.routers.counted["r2"][of("g2", shadow=True)] = scored
    terminal.run("routing tiny --gate gate")
    at = terminal.lines().index("gate: g2 (candidate, in the shadow), top 2 of 2")
    assert terminal.lines()[at + 2] == "    0     2 ▄▄   1.00 0.50 0.0% e3 100%"


def test_a_router_that_says_nothing_is_named(terminal: Terminal) -> None:
    del terminal.routers.counted["r2"]
    assert terminal.run("routing tiny") is Exit.HEALTHY
    assert terminal.lines()[:2] == [
        "tiny: 1 router, since their start",
        "not counted: router r2: it is away",
    ]


@pytest.mark.parametrize(
    ("line", "error", "text"),
    [
        ("routing other", NotFound, "no Mixture other"),
        ("routing gate/x", UsageError, "'gate/x' is a Gate; this verb takes a mixture"),
        ("routing tiny --gate x", UsageError, "the gates of this mixture are gate, late"),
        ("routing tiny --layer 3", UsageError, "the layers with a gate are 0 to 2"),
        ("routing tiny --layer 2 --gate gate", UsageError, "with a gate are 0 to 1"),
        ("routing tiny -w -o json", UsageError, "json is printed once"),
    ],
)
def test_what_cannot_be_shown_is_said(
    terminal: Terminal, line: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        terminal.run(line)


def test_without_a_router_there_is_nothing_to_show(terminal: Terminal) -> None:
    terminal.routers.counted = {}
    with pytest.raises(ClusterError, match="no router answers: router r1: it is away; router r2"):
        terminal.run("routing tiny")
    alone = Terminal(bodies.mixture(), table(), router("r3", "Pending"))
    with pytest.raises(ClusterError, match="no router of tiny is running"):
        alone.run("routing tiny")


@pytest.mark.parametrize("flag", ["--top 0", "--top x", "--layer -1", "--window soon"])
def test_a_wrong_number_is_refused(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["routing", "tiny", *flag.split()])
    assert flag.split()[0] in capsys.readouterr().err


@pytest.mark.parametrize(("experts", "layers"), [(8, 4), (64, 58), (256, 58), (384, 61)])
def test_lines_fit_a_hundred_columns(experts: int, layers: int) -> None:
    names = tuple(f"an-expert-with-a-long-name-{number}" for number in range(experts))
    pairs = tuple(number % 7 * 1_000_003 for number in range(experts))
    load = Load(sum(pairs) // 8, pairs, sum(pairs) // 3, 5, 25.0)
    loads = dict.fromkeys(range(layers), load)
    one = Routed("gate", "v1", "0" * 64, "stable", False, names, 8, loads)
    lines = heat.heat_map(one, 20, colour=False).splitlines()
    assert max(map(len, lines)) <= heat.WIDTH
    assert len(lines) == 2 + min(layers, 20) + (layers > 20)
    assert (f"{layers - 20} more layers" in lines[-1]) is (layers > 20)
    assert max(map(len, heat.experts(one, 0, 20).splitlines())) <= heat.WIDTH
    assert max(map(len, heat.legend([one]).splitlines())) <= heat.WIDTH
    assert ("a cell is the most loaded" in heat.legend([one])) is (experts > 64)


def test_colour_marks_what_is_far_from_even_and_nothing_else() -> None:
    one = Routed("gate", "v1", "0" * 64, "stable", False, EXPERTS, 2, {0: SKEWED})
    coloured = heat.heat_map(one, 1, colour=True)
    assert "\x1b[31m█\x1b[0m▆▂\x1b[36m·\x1b[0m" in coloured
    assert "\x1b" not in heat.heat_map(one, 1, colour=False)


counts = st.lists(st.tuples(*[st.integers(0, 1_000)] * 3), min_size=1, max_size=6)


@given(counts)
def test_what_came_between_readings_adds_up_to_all_there_is(steps: list[tuple[int, ...]]) -> None:
    readings = [Reading("r", "one", {})]
    for step in steps:
        added = Load(1 + max(step), step, step[0], 1, 0.5)
        known = readings[-1].loads.get(of())
        readings.append(Reading("r", "one", {of(): added if known is None else known.plus(added)}))
    parts = [part for earlier, later in pairwise(readings) for part in between([earlier], [later])]
    assert total(parts) == total(readings[-1:])


def test_a_router_unknown_before_may_have_run_before_and_does_not_count() -> None:
    known, new = Reading("r1", "one", {of(): EVEN}), Reading("r2", "one", {of(): SKEWED})
    assert between([known], [known, new]) == (Reading("r1", "one", {of(): EVEN.plus(EVEN, -1)}),)
    assert total(between([known], [new])) == {}
