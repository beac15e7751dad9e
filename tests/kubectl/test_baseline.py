"""`kubectl moe baseline`: from what routers counted to what a Gate's spec takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from kubectl_moe.cluster import ClusterError
from kubectl_moe.decide import Refused
from kubectl_moe.gate_loads import Load, Of
from kubectl_moe.health import Exit
from moe_core.document import Reader
from moe_core.drift import GROUPS
from moe_operator.drift_spec import DriftSpec
from tests.kubectl import bodies
from tests.kubectl.terminal import Terminal
from tests.kubectl.test_routing import of, router, table

EXPERTS = ("e0", "e1", "e2", "e3")


def load(*groups: tuple[int, int, int, int]) -> Load:
    """Return what these groups of sessions chose, and the others like the last one."""
    every = [*groups, *[groups[-1]] * (GROUPS - len(groups))]
    pairs = tuple(sum(column) for column in zip(*every, strict=True))
    return Load(sum(pairs) // 2, pairs, groups=tuple(n for group in every for n in group))


def gate(**drift: Any) -> dict[str, Any]:
    spec = {"mixtureRef": {"name": "tiny"}, **({"drift": drift} if drift else {})}
    return {"kind": "Gate", "metadata": {"name": "gate"}, "spec": spec}


def terminal(**drift: Any) -> Terminal:
    found = Terminal(bodies.mixture(), table(), gate(**drift), router("r1"), router("r2"))
    mixed = load((4, 2, 1, 1), (2, 4, 1, 1))
    found.routers.counted = {"r1": {of(): mixed, of(layer=1): mixed}, "r2": {of(): mixed}}
    return found


def printed(terminal: Terminal) -> Any:
    return yaml.safe_load(terminal.out.getvalue())["spec"]["drift"]


def test_what_is_printed_is_what_a_gate_takes() -> None:
    seen = terminal()
    assert seen.run("baseline gate") is Exit.HEALTHY
    drift = printed(seen)
    (one,) = drift["baselines"]
    assert (one["version"], one["sha256"]) == ("g1", bodies.sha("g1"))
    assert [layer["layer"] for layer in one["layers"]] == [0, 1]
    assert one["layers"][0]["pairs"] == [68, 124, 32, 32]
    read = DriftSpec.read(Reader(drift, "spec.drift"), bodies.sha("g1"), EXPERTS)
    assert read.baselines[bodies.sha("g1")][0, ""].effective > 16
    assert "--patch-file" in seen.lines()[1]


def test_json_says_the_same() -> None:
    text, other = terminal(), terminal()
    text.run("baseline gate")
    other.run("baseline gate -o json")
    assert json.loads(other.out.getvalue())["spec"]["drift"] == printed(text)


def test_a_window_counts_what_comes_in_it() -> None:
    seen, came = terminal(), load((10, 0, 0, 0), (0, 10, 0, 0))

    def more() -> None:
        if len(seen.routers.asked) == 1:
            counted = seen.routers.counted
            for place in (of(), of(layer=1)):
                counted["r1"][place] = counted["r1"][place].plus(came)

    seen.routers.before_reading = more
    seen.run("baseline gate --window 1m")
    assert printed(seen)["baselines"][0]["layers"][0]["pairs"] == list(came.pairs)


def test_baselines_of_other_versions_stay_and_that_of_this_one_is_replaced() -> None:
    layers = [{"layer": 0, "effectivePairs": 5, "pairs": [1, 2]}]
    known = [{"sha256": bodies.sha(v), "version": v, "layers": layers} for v in ("g1", "g0")]
    seen = terminal(baselines=known)
    seen.run("baseline gate")
    new, old = printed(seen)["baselines"]
    assert new["layers"][0]["pairs"] == [68, 124, 32, 32]
    assert old == known[1]


def test_rows_of_one_context_have_a_baseline_of_their_own_where_there_are_enough() -> None:
    seen, mixed = terminal(), load((4, 2, 1, 1), (2, 4, 1, 1))
    few = Load(5, (5, 0, 0, 0), groups=(5, *[0] * (4 * GROUPS - 1)))
    for context, counted in (("legal", mixed), ("rare", few)):
        place = Of("gate", bodies.sha("g1"), 0, context=context)
        seen.routers.counted["r1"][place] = counted
    seen.run("baseline gate")
    layers = printed(seen)["baselines"][0]["layers"]
    assert [layer.get("context") for layer in layers] == [None, "legal", None]
    assert (
        "left out: layer 0, context rare: 5 rows are of too few sessions"
        in seen.progress.getvalue()
    )


def test_too_few_sessions_are_refused_with_what_helps() -> None:
    seen = terminal()
    one = Load(5000, (9000, 1000, 0, 0), groups=(9000, 1000, *[0] * (4 * GROUPS - 2)))
    seen.routers.counted = {"r1": {of(): one}, "r2": {of(): one}}
    with pytest.raises(Refused, match=r"too few sessions \(1\.0 of 16 groups.*longer --window"):
        seen.run("baseline gate")


def test_a_router_that_does_not_answer_would_be_missing_from_it() -> None:
    seen = terminal()
    del seen.routers.counted["r2"]
    with pytest.raises(ClusterError, match="not all routers answer: router r2"):
        seen.run("baseline gate")
