"""The verbs from the command line to what is printed and written, on a cluster in memory."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubectl_moe.arguments import parser
from kubectl_moe.cluster import NotFound
from kubectl_moe.decide import Refused
from kubectl_moe.health import Exit
from kubectl_moe.names import UsageError
from tests.kubectl import bodies
from tests.kubectl.terminal import Terminal


def history() -> list[dict[str, Any]]:
    return [bodies.revision(1, "v1"), bodies.revision(2, "v2")]


def test_the_tree_goes_from_the_mixture_to_its_pods() -> None:
    canary = bodies.expert(
        version="v2", candidate="v2", weight="25%", rollout=bodies.rollout("Progressing")
    )
    terminal = Terminal(
        bodies.mixture(),
        canary,
        bodies.deployment("v1"),
        bodies.deployment("v2", ready=0),
        bodies.pod("p1", "v1"),
        bodies.pod("p2", "v2", ready=False),
    )
    assert terminal.run("status tiny") is Exit.HEALTHY
    lines = terminal.out.getvalue().splitlines()
    assert lines[0].split() == ["NAME", "KIND", "STATUS", "AGE", "INFO"]
    kind_at = lines[0].index("KIND")
    names = [line[:kind_at].rstrip() for line in lines[1:]]
    assert names == [
        "✔ tiny",
        "├── ✔ tiny-router",
        "└── ◌ tiny-e3",
        "    ├── ✔ v1",
        "    │   └── ✔ p1",
        "    └── ◌ v2",
        "        └── ◌ p2",
    ]
    assert "candidate 25%" in lines[6]
    assert "v2 at 25%" in lines[3]


def test_what_is_known_of_a_candidate_hangs_below_it() -> None:
    said = [
        {"tier": "Service", "name": "requests", "state": "Waiting", "message": "3 of 20 requests"},
        {"tier": "Quality", "name": "golden", "state": "Pass", "message": "golden set: −0.131"},
    ]
    on_trial = bodies.rollout("Progressing", evidence=said)
    canary = bodies.expert(version="v2", candidate="v2", weight="25%", rollout=on_trial)
    terminal = Terminal(canary, bodies.deployment("v1"), bodies.deployment("v2"))
    terminal.run("status ex/tiny-e3")
    lines = [" ".join(line.split()) for line in terminal.out.getvalue().splitlines()]
    assert lines[4].startswith("├── ◌ requests Service Waiting")
    assert lines[4].endswith("3 of 20 requests")
    assert lines[5].startswith("└── ✔ golden Quality Pass")
    terminal.run("status ex/tiny-e3 -o json")
    assert '"name": "golden"' in terminal.out.getvalue()


def test_why_a_load_asks_for_so_many_replicas_hangs_below_the_expert() -> None:
    said = {"replicas": 3, "since": bodies.CREATED, "message": "2 → 3: 2.0 workers busy 97%"}
    terminal = Terminal(bodies.expert(ready="2/3", autoscaling=said), bodies.deployment("v1"))
    terminal.run("status ex/tiny-e3")
    lines = [" ".join(line.split()) for line in terminal.out.getvalue().splitlines()]
    assert lines[1].endswith("ready 2/3")
    assert lines[2].startswith("├── ✔ autoscaling Scaling wants 3")
    assert lines[2].endswith("2 → 3: 2.0 workers busy 97%")


def test_that_there_are_no_more_gpus_hangs_there_too() -> None:
    full = "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    said = {"replicas": 3, "since": bodies.CREATED, "message": "2 → 3: busy", "full": full}
    terminal = Terminal(bodies.expert(ready="2/3", autoscaling=said), bodies.deployment("v1"))
    terminal.run("status ex/tiny-e3")
    assert f"no more are asked for while some find no node: {full}" in terminal.out.getvalue()


def test_a_gate_shows_its_candidate_and_what_is_known_of_it() -> None:
    said = {"tier": "Sanity", "name": "load", "state": "Pass", "message": "in layer 0 e1 would"}
    trial = bodies.rollout("Progressing", "g2", evidence=[said])
    terminal = Terminal(bodies.gate(candidate="g2", weight="5%", rollout=trial))
    terminal.run("status gate/tiny-gate")
    lines = [" ".join(line.split()) for line in terminal.lines()]
    assert "serves g1; g2 at 5%" in lines[1]
    assert lines[2].startswith("└── ✔ load Sanity Pass")


@pytest.mark.parametrize(("status", "icon"), [("True", "✖"), ("False", "✔"), ("Unknown", "◌")])
def test_how_the_routing_of_a_gate_stands_hangs_below_it(status: str, icon: str) -> None:
    said = {"type": "Drifting", "status": status, "reason": "R", "message": "layer 0 is at PSI 1"}
    gate = bodies.gate()
    gate["status"]["conditions"] = [*gate["status"].get("conditions", []), said]
    terminal = Terminal(gate)
    terminal.run("status gate/tiny-gate")
    line = " ".join(terminal.lines()[2].split())
    assert line.startswith(f"└── {icon} Drifting Routing {status}")
    assert line.endswith("layer 0 is at PSI 1")


def test_how_the_health_of_an_expert_stands_hangs_below_it() -> None:
    said = {"type": "NormShifted", "status": "True", "reason": "R", "message": "its mean norm is 9"}
    expert = bodies.expert()
    expert["status"]["conditions"] = [*expert["status"].get("conditions", []), said]
    terminal = Terminal(expert)
    terminal.run("status ex/tiny-e3")
    (line,) = (" ".join(one.split()) for one in terminal.lines() if "NormShifted" in one)
    assert line.startswith("└── ✖ NormShifted Health True")
    assert line.endswith("its mean norm is 9")


def test_resume_says_what_is_missing_where_evidence_is() -> None:
    paused = bodies.rollout("Paused", message="0 of 20 requests; paused for want of evidence")
    terminal = Terminal(bodies.expert(version="v2", candidate="v2", rollout=paused))
    terminal.run("resume ex/tiny-e3")
    assert "nothing holds expert 'tiny-e3'; 0 of 20 requests" in terminal.progress.getvalue()


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ("Promoted", Exit.HEALTHY),
        ("RolledBack", Exit.DEGRADED),
        ("Paused", Exit.PAUSED),
        ("Progressing", Exit.TIMEOUT),
    ],
)
def test_waiting_ends_with_the_code_of_what_was_reached(outcome: str, code: Exit) -> None:
    terminal = Terminal(bodies.expert(rollout=bodies.rollout(outcome)))
    assert terminal.run("status ex/tiny-e3 --wait --timeout 5s") is code
    assert "as the test wants it" in terminal.progress.getvalue() or code is Exit.HEALTHY


def test_json_has_the_health_and_the_objects() -> None:
    terminal = Terminal(bodies.expert(rollout=bodies.rollout("RolledBack")))
    assert terminal.run("status expert/tiny-e3 -o json") is Exit.DEGRADED
    report = json.loads(terminal.out.getvalue())
    assert report["health"] == "RolledBack"
    assert [item["kind"] for item in report["items"]] == ["Expert"]


def test_get_lists_each_kind_with_its_columns() -> None:
    terminal = Terminal(bodies.mixture(), bodies.expert(rollout=bodies.rollout("Promoted")))
    assert terminal.run("get") is Exit.HEALTHY
    text = terminal.out.getvalue()
    assert "EXPERTS   ROUTERS   EPOCH" in text
    assert "2/4" in text


def test_an_empty_namespace_says_so() -> None:
    terminal = Terminal()
    terminal.run("get experts")
    assert terminal.out.getvalue() == ""
    assert terminal.progress.getvalue().splitlines() == [
        "nothing found in namespace test",
        "next: kubectl moe get --all-namespaces  # what there is elsewhere",
    ]


def test_history_says_what_each_version_is_now() -> None:
    terminal = Terminal(bodies.expert(candidate="v2", weight="5%"), *history())
    terminal.run("history tiny-e3")
    rows = [line.split() for line in terminal.out.getvalue().splitlines()[1:]]
    assert [(row[0], row[1], row[4]) for row in rows] == [
        ("2", "v2", "candidate"),
        ("1", "v1", "stable"),
    ]


def test_rollback_creates_an_override_in_the_name_of_who_asks() -> None:
    expert = bodies.expert(version="v2", sha256=bodies.sha("v2"))
    expert["status"]["version"] = "v2"
    terminal = Terminal(expert, *history())
    assert terminal.run("rollback tiny-e3 --reason worse") is Exit.HEALTHY
    (created,) = terminal.cluster.created
    assert created["spec"] == {
        "targetRef": {"kind": "Expert", "name": "tiny-e3"},
        "action": "Serve",
        "version": "v1",
        "insteadOf": "v2",
        "reason": "worse",
        "requestedBy": "ann",
    }
    assert terminal.progress.getvalue().splitlines() == [
        "expert 'tiny-e3' rolled back",
        "next: kubectl moe status ex/tiny-e3 --wait  # until it has settled",
        "      kubectl moe resume tiny-e3            # follow the spec again",
    ]


def test_rollback_with_wait_ends_when_the_version_is_served() -> None:
    expert = bodies.expert(version="v2", candidate="v2")
    terminal = Terminal(expert, *history())
    terminal.cluster.state = "Active"
    assert terminal.run("rollback tiny-e3 --wait") is Exit.HEALTHY
    assert "tiny-e3 serves v1" in terminal.progress.getvalue()


def test_resume_removes_and_says_what_it_removed() -> None:
    terminal = Terminal(bodies.expert(), bodies.override("Pause", insteadOf="v1"))
    terminal.run("resume tiny-e3")
    assert terminal.cluster.deleted == ["tiny-e3-pause-x"]
    terminal.run("resume tiny-e3")
    assert "skipped resume: nothing holds" in terminal.progress.getvalue()


@pytest.mark.parametrize(
    ("line", "error", "text"),
    [
        ("status nosuch", NotFound, "no mixture and no expert 'nosuch' in namespace test"),
        ("status pod/x", UsageError, "'pod' is no kind of moeops; kinds are"),
        ("status ov/x", UsageError, "not an Override"),
        ("status gt/x", NotFound, "there is no Gate x"),
        ("status mx/", UsageError, "names no object"),
        ("promote mx/tiny", UsageError, "this verb takes an expert"),
        ("history ov/x", UsageError, "'ov/x' is a Override; this verb takes an expert or a mix"),
        ("get pods", UsageError, "'pods' is no kind"),
        ("get experts nosuch", NotFound, "no Expert nosuch"),
        ("promote tiny-e3", Refused, "no rollout in progress"),
        ("retry tiny-e3", Refused, "no failed rollout"),
    ],
)
def test_what_cannot_be_done_is_said(line: str, error: type[Exception], text: str) -> None:
    terminal = Terminal(bodies.mixture(), bodies.expert())
    with pytest.raises(error, match=text):
        terminal.run(line)
    assert not terminal.cluster.created


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("", "required: VERB"),
        ("undo x", "invalid choice"),
        ("rollback", "required: target"),
        ("status x --timeout soon", "'soon' is no duration; write 90s, 5m or 1h"),
        ("status x -o wide", "invalid choice"),
    ],
)
def test_a_wrong_command_line_ends_with_1(
    line: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(line.split())
    assert ended.value.code == Exit.ERROR
    assert text in capsys.readouterr().err
