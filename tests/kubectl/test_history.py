"""The verbs that look back, and the way back to a whole epoch: from the command line to what is
printed and written.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubectl_moe.decide import Refused
from kubectl_moe.health import Exit
from kubectl_moe.past import Unknown
from tests.kubectl import bodies
from tests.kubectl.terminal import Terminal

BROKEN = {**bodies.revision(2, "v2"), "data": {"version": {"version": "v2"}}}


def expert(name: str = "tiny-e3", version: str = "v2", served: str = "v2") -> dict[str, Any]:
    body = bodies.expert(name, version, sha256=bodies.sha(served))
    body["status"]["version"] = served
    return body


def mixture_of_two(*more: dict[str, Any]) -> Terminal:
    """Return a mixture that served epochs 2, 5 and 7: now v2 of both experts and g2."""
    return Terminal(
        bodies.mixture(),
        bodies.gate("g2"),
        expert("tiny-e3"),
        expert("tiny-e4"),
        bodies.epoch(5, e3="v2", e4="v1"),
        bodies.epoch(2, e3="v1", e4="v1"),
        bodies.epoch(7, "g2", e3="v2", e4="v2"),
        bodies.revision(1, "v1"),
        *more,
    )


def test_history_says_how_each_revision_ended_when_why_and_by_whom() -> None:
    why = "Aborted: v2 was taken back: Override stop by ann: it swears"
    ended = [
        {"revision": 1, "outcome": "Promoted", "at": bodies.CREATED, "why": "Serving: v1"},
        {"revision": 2, "outcome": "Aborted", "at": bodies.CREATED, "why": why, "by": "ann"},
    ]
    trial = bodies.rollout("Progressing", "v3", 3)
    terminal = Terminal(
        bodies.expert(version="v3", candidate="v3", weight="5%", rollout=trial, history=ended),
        bodies.revision(1, "v1"),
        bodies.revision(2, "v2"),
        bodies.revision(3, "v3"),
    )
    assert terminal.run("history tiny-e3") is Exit.HEALTHY
    third, second, first = terminal.lines()[1:]
    assert "Progressing" in third
    assert "candidate at 5%" in third
    assert second.split()[:5] == ["2", "v2", bodies.sha("v2")[:10], "Aborted", "-"]
    assert second.endswith("ann   v2 was taken back: Override stop by ann: it swears")
    assert first.split()[:5] == ["1", "v1", bodies.sha("v1")[:10], "Promoted", "stable"]
    terminal.clear()
    terminal.run("history tiny-e3 -o json")
    report = json.loads(terminal.out.getvalue())
    assert [r["by"] for r in report["revisions"]] == ["", "ann", ""]


def test_one_revision_is_shown_whole() -> None:
    terminal = Terminal(expert(), bodies.revision(1, "v1"), bodies.revision(2, "v2"))
    terminal.run("history tiny-e3 --revision 2")
    text = terminal.out.getvalue()
    assert f"sha256:   {bodies.sha('v2')}" in text
    assert "image: worker:v2" in text
    terminal.clear()
    terminal.run("history tiny-e3 --revision 2 -o json")
    assert json.loads(terminal.out.getvalue())["template"]["spec"]["containers"]


def test_a_broken_revision_is_listed_as_unreadable_and_blocks_nothing() -> None:
    now, newest = expert(version="v3", served="v3"), bodies.revision(3, "v3")
    terminal = Terminal(now, bodies.revision(1, "v1"), BROKEN, newest)
    terminal.run("history tiny-e3")
    assert "unreadable: data.version.sha256 is missing" in terminal.lines()[2]
    assert terminal.run("diff tiny-e3") is Exit.DIFFERENT
    assert terminal.run("rollback tiny-e3") is Exit.HEALTHY
    assert terminal.cluster.created[0]["spec"]["version"] == "v1"
    with pytest.raises(Unknown, match="revision 2 of expert 'tiny-e3' is unreadable"):
        terminal.run("history tiny-e3 --revision 2")


@pytest.mark.parametrize(
    ("line", "titles"),
    [
        ("diff tiny-e3", ("2", "3")),
        ("diff tiny-e3 1", ("1", "3")),
        ("diff tiny-e3 v1 v2", ("1", "2")),
        ("diff tiny-e3 3 1", ("3", "1")),
    ],
)
def test_a_diff_is_unified_and_ends_with_5(line: str, titles: tuple[str, str]) -> None:
    past = [bodies.revision(number, f"v{number}") for number in (1, 2, 3)]
    terminal = Terminal(expert(), *past)
    assert terminal.run(line) is Exit.DIFFERENT
    lines = terminal.lines()
    assert lines[:2] == [
        f"--- tiny-e3 revision {titles[0]}",
        f"+++ tiny-e3 revision {titles[1]}",
    ]
    assert f"-    - image: worker:v{titles[0]}" in lines
    assert f"+version: v{titles[1]}" in lines


def test_no_difference_prints_nothing_and_ends_with_0() -> None:
    terminal = Terminal(expert(), bodies.revision(1, "v1"), bodies.revision(2, "v1"))
    assert terminal.run("diff tiny-e3") is Exit.HEALTHY
    assert terminal.out.getvalue() == ""


def test_the_history_of_a_mixture_says_what_each_epoch_changed() -> None:
    terminal = mixture_of_two()
    terminal.run("history mixture/tiny")
    rows = [line.split(maxsplit=3) for line in terminal.lines()[1:]]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ("7", "served", "tiny-e4 v1 → v2; tiny-gate g1 → g2"),
        ("5", "-", "tiny-e3 v1 → v2"),
        ("2", "-", "2 experts, 1 gate"),
    ]
    terminal.clear()
    terminal.run("history mx/tiny --revision 5")
    assert [line.split()[:3] for line in terminal.lines()[1:]] == [
        ["Gate", "tiny-gate", "g1"],
        ["Expert", "tiny-e3", "v2"],
        ["Expert", "tiny-e4", "v1"],
    ]
    terminal.clear()
    assert terminal.run("diff mx/tiny 2 5") is Exit.DIFFERENT
    assert "+++ tiny epoch 5" in terminal.lines()


def test_an_epoch_is_brought_back_by_one_override_that_lists_what_differs() -> None:
    terminal = mixture_of_two()
    assert terminal.run("rollback mixture/tiny --to 5 --reason slow") is Exit.HEALTHY
    (created,) = terminal.cluster.created
    assert created["spec"] == {
        "targetRef": {"kind": "Mixture", "name": "tiny"},
        "action": "Serve",
        "epoch": 5,
        "replaces": [
            {"kind": "Expert", "name": "tiny-e4", "insteadOf": "v2"},
            {"kind": "Gate", "name": "tiny-gate", "insteadOf": "g2"},
        ],
        "reason": "slow",
        "requestedBy": "ann",
    }
    assert terminal.progress.getvalue().startswith("mixture 'tiny' rolled back\nnext: ")
    terminal.run("rollback mixture/tiny --to 5")
    assert "already asks for that" in terminal.progress.getvalue()
    terminal.run("resume mixture/tiny")
    assert len(terminal.cluster.deleted) == 1


def test_an_expert_that_serves_another_version_than_its_spec_asks_for_is_listed() -> None:
    """Its spec asks for what the epoch had, but an Override keeps it elsewhere."""
    held = expert("tiny-e5", "v1", "v2")
    kept = [bodies.epoch(1, e5="v1"), bodies.epoch(4, e5="v2")]
    terminal = Terminal(bodies.mixture(), held, *kept)
    terminal.run("rollback mx/tiny")
    (created,) = terminal.cluster.created
    assert created["spec"]["epoch"] == 1
    assert created["spec"]["replaces"] == [{"kind": "Expert", "name": "tiny-e5", "insteadOf": "v1"}]


def test_what_is_served_is_skipped_and_what_is_gone_is_told() -> None:
    terminal = mixture_of_two()
    terminal.run("rollback mx/tiny --to 7")
    assert "serves what epoch 7 served" in terminal.progress.getvalue()
    assert not terminal.cluster.created
    terminal.cluster.bodies.remove(terminal.cluster.get("Expert", "tiny-e3"))
    terminal.run("rollback mx/tiny --to 2")
    assert "tiny-e3 of epoch 2 is gone: it stays so" in terminal.progress.getvalue()


@pytest.mark.parametrize(
    ("state", "code"), [("Active", Exit.HEALTHY), ("Refused", Exit.DEGRADED), ("Pending", 3)]
)
def test_waiting_for_an_epoch_ends_with_its_override(state: str, code: int) -> None:
    terminal = mixture_of_two()
    terminal.cluster.state = state
    assert terminal.run("rollback mx/tiny --to 2 --wait --timeout 5s") == code


@pytest.mark.parametrize(
    ("line", "error", "text"),
    [
        ("rollback mx/tiny --to 9", Unknown, "epoch 9 of mixture 'tiny' is not kept; kept are 2"),
        ("rollback mx/tiny --to v2", Unknown, "epoch v2 of mixture 'tiny' is not kept"),
        ("history mx/tiny --revision 3", Unknown, "epoch 3 of mixture 'tiny' is not kept"),
        ("diff tiny-e3", Refused, "expert 'tiny-e3' has nothing to compare"),
        ("diff tiny-e3 9", Unknown, r"never had a version or revision '9'; it had 1 \(v1\)"),
    ],
)
def test_what_cannot_be_done_is_said(line: str, error: type[Exception], text: str) -> None:
    terminal = mixture_of_two()
    with pytest.raises(error, match=text):
        terminal.run(line)


def test_a_mixture_without_an_earlier_epoch_has_no_way_back() -> None:
    terminal = Terminal(bodies.mixture(), bodies.epoch(2, e3="v1"))
    with pytest.raises(Refused, match="mixture 'tiny' has no earlier epoch to go back to"):
        terminal.run("rollback mx/tiny")
    with pytest.raises(Unknown, match="epoch 5 of mixture 'tiny' is not kept; kept are none"):
        Terminal(bodies.mixture()).run("rollback mx/tiny --to 5")


def test_an_epoch_that_is_broken_is_listed_and_passed_over() -> None:
    broken = {**bodies.epoch(6, e3="v9"), "data": {"experts": {}, "gates": [{"name": "g"}]}}
    terminal = mixture_of_two(broken)
    terminal.run("history mx/tiny")
    assert "unreadable: data.gates[0].stable is missing" in terminal.lines()[2]
    terminal.run("rollback mx/tiny")
    assert terminal.cluster.created[0]["spec"]["epoch"] == 5
    with pytest.raises(Unknown, match="epoch 6 of mixture 'tiny' is unreadable"):
        terminal.run("rollback mx/tiny --to 6")


def test_overrides_are_shown_with_what_became_of_them() -> None:
    lapsed = bodies.override("Serve", "Lapsed", version="v1", insteadOf="v2", requestedBy="ann")
    lapsed["status"]["message"] = "spec.version is v3, no longer v2"
    done = bodies.override("Abort", "Done", revision=2)
    terminal = Terminal(bodies.mixture(), expert(), lapsed, done)
    assert terminal.run("status ex/tiny-e3") is Exit.HEALTHY
    lines = terminal.lines()
    assert len(lines) == 3
    assert "⚠ tiny-e3-serve-x" in lines[2]
    assert "Lapsed" in lines[2]
    assert lines[2].endswith("Serve v1 by ann; spec.version is v3, no longer v2")
    terminal.clear()
    terminal.run("get overrides")
    assert "spec.version is v3, no longer v2" in terminal.out.getvalue()


def gate_revision(number: int, version: str) -> dict[str, Any]:
    body = bodies.revision(number, version, "tiny-gate")
    body["metadata"] |= {
        "name": f"tiny-gate.gate-{number}",
        "labels": {"moeops.dev/mixture": "tiny", "moeops.dev/gate": "tiny-gate"},
    }
    return body


def test_a_gate_has_a_history_and_a_way_back_and_its_revisions_are_no_epochs() -> None:
    terminal = mixture_of_two(gate_revision(1, "g1"), gate_revision(2, "g2"))
    assert terminal.run("history gate/tiny-gate") is Exit.HEALTHY
    assert [line.split()[1] for line in terminal.lines()[1:]] == ["g2", "g1"]
    terminal.clear()
    assert terminal.run("history mixture/tiny -o json") is Exit.HEALTHY
    told = json.loads(terminal.out.getvalue())
    assert sorted(epoch["epoch"] for epoch in told["epochs"]) == [2, 5, 7]
    assert terminal.run("rollback gate/tiny-gate") is Exit.HEALTHY
    (made,) = terminal.cluster.list("Override")
    assert made["spec"]["targetRef"] == {"kind": "Gate", "name": "tiny-gate"}
    assert (made["spec"]["version"], made["spec"]["insteadOf"]) == ("g1", "g2")
