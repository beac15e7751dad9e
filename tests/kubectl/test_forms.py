"""What verbs print for programs and for people: forms, names, advice; and `set` and `version`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_moe.decide import Refused
from kubectl_moe.health import Exit
from kubectl_moe.names import UsageError
from kubectl_moe.session import coloured
from kubectl_moe.vocabulary import VERBS
from tests.kubectl import bodies
from tests.kubectl.terminal import Terminal

Body = dict[str, Any]


def stage() -> Terminal:
    """A mixture with a gate, and an expert that had two versions, the first of which is served."""
    expert = bodies.expert(phase="Serving")
    expert["spec"]["artifact"] = {"uri": "file:///v1", "sha256": bodies.sha("v1")}
    gate = bodies.gate()
    gate["spec"]["artifact"] = {"uri": "file:///g1", "sha256": bodies.sha("g1")}
    return Terminal(
        *(bodies.mixture(), gate, expert),
        *(bodies.revision(1, "v1"), bodies.revision(2, "v2"), bodies.epoch(4, e3="v1")),
    )


@pytest.mark.parametrize(
    "line",
    [
        *("get", "get ex tiny-e3", "status tiny", "history tiny-e3", "history mixture/tiny"),
        *("history tiny-e3 --revision 1", "diff tiny-e3 1 2", "pause tiny-e3", "version"),
        *("rollback tiny-e3 --to v2", "resume tiny-e3", "set version tiny-e3 v2"),
    ],
)
def test_yaml_says_what_json_says_and_nothing_else_is_printed(line: str) -> None:
    as_json, as_yaml = stage(), stage()
    assert as_json.run(f"{line} -o json") is as_yaml.run(f"{line} -o yaml")
    assert json.loads(as_json.out.getvalue()) == yaml.safe_load(as_yaml.out.getvalue())
    assert "next:" not in as_json.progress.getvalue()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        (
            "get",
            ["mixture.moeops.dev/tiny", "gate.moeops.dev/tiny-gate", "expert.moeops.dev/tiny-e3"],
        ),
        ("list experts", ["expert.moeops.dev/tiny-e3"]),
        ("get overrides", []),
        ("status gate/tiny-gate", ["gate.moeops.dev/tiny-gate"]),
        ("pause tiny-e3", ["override.moeops.dev/tiny-e3-pause-1"]),
        ("resume tiny-e3", []),
        ("set version tiny-e3 v2", ["expert.moeops.dev/tiny-e3"]),
    ],
)  # fmt: skip
def test_names_are_as_kubectl_takes_them(line: str, names: list[str]) -> None:
    terminal = stage()
    terminal.run(f"{line} -o name")
    assert terminal.lines() == names


def test_wide_adds_columns_and_takes_none_away() -> None:
    for line in ("get mixtures", "get gates", "get experts", "history tiny-e3"):
        plain, wide = stage(), stage()
        plain.run(line)
        wide.run(f"{line} -o wide")
        titles = plain.lines()[0].split()
        assert wide.lines()[0].split()[: len(titles)] == titles
        assert len(wide.lines()[0].split()) > len(titles)


def test_all_namespaces_are_told_apart() -> None:
    terminal = stage()
    terminal.cluster.bodies[2]["metadata"]["namespace"] = "here"
    terminal.run("get experts -A")
    assert [line.split()[0] for line in terminal.lines()] == ["NAMESPACE", "here"]
    with pytest.raises(UsageError, match="name it with -n"):
        terminal.run("get experts tiny-e3 -A")
    with pytest.raises(UsageError, match="of which kind is 'tiny-e3'"):
        terminal.run("get all tiny-e3")


def paused() -> Body:
    return bodies.expert(version="v2", candidate="v2", rollout=bodies.rollout("Paused"))


@pytest.mark.parametrize(
    ("there", "line", "commands"),
    [
        ([bodies.mixture()], "get", ["status tiny"]),
        ([bodies.mixture(), paused()], "get", ["status ex/tiny-e3"]),
        ([bodies.mixture(), paused()], "status tiny", ["status ex/tiny-e3"]),
        ([bodies.mixture()], "status tiny", ["top tiny"]),
        ([paused()], "status ex/tiny-e3", ["resume tiny-e3", "promote tiny-e3", "abort tiny-e3"]),
        (
            [bodies.expert(rollout=bodies.rollout("RolledBack"))],
            "status ex/tiny-e3",
            ["history tiny-e3", "retry tiny-e3"],
        ),
        ([bodies.gate()], "pause gate/tiny-gate",
         ["status gate/tiny-gate --wait", "resume gate/tiny-gate"]),
        ([paused()], "abort tiny-e3", ["status ex/tiny-e3 --wait", "retry tiny-e3"]),
        ([bodies.expert()], "history tiny-e3", ["status ex/tiny-e3"]),
    ],
)  # fmt: skip
def test_the_command_that_may_come_next_is_said_beside_the_output(
    there: list[Body], line: str, commands: list[str]
) -> None:
    terminal = Terminal(*there)
    terminal.run(line)
    said = [text for text in terminal.progress.getvalue().splitlines() if "  # " in text]
    assert [text[6:].split("  # ")[0].rstrip() for text in said] == [
        f"kubectl moe {command}" for command in commands
    ]
    quiet = Terminal(*there)
    quiet.run(f"{line} -q")
    assert "  # " not in quiet.progress.getvalue()
    assert terminal.out.getvalue() == quiet.out.getvalue()


def test_a_known_version_needs_no_artifact() -> None:
    terminal = stage()
    assert terminal.run("set version tiny-e3 v2") is Exit.HEALTHY
    ((body, dry_run),) = terminal.cluster.applied
    assert not dry_run
    assert body["spec"] == {
        "version": "v2",
        "artifact": {"uri": "file:///x", "sha256": bodies.sha("v2")},
    }
    assert terminal.progress.getvalue().splitlines()[:2] == [
        "expert 'tiny-e3' asks for version v2",
        "next: kubectl moe status ex/tiny-e3 --wait  # until it is promoted or taken back",
    ]


def test_a_new_version_of_a_gate_is_checked_without_a_change() -> None:
    terminal = stage()
    sha256 = bodies.sha("g2")
    line = f"set version gate/tiny-gate g2 --uri file:///g2 --sha256 {sha256} --dry-run"
    assert terminal.run(line) is Exit.HEALTHY
    ((body, dry_run),) = terminal.cluster.applied
    assert dry_run
    assert (body["kind"], body["spec"]["artifact"]["sha256"]) == ("Gate", sha256)
    assert terminal.cluster.get("Gate", "tiny-gate")["spec"]["version"] == "g1"


def test_waiting_for_a_version_ends_with_how_it_went() -> None:
    terminal = stage()
    terminal.cluster.bodies[2]["status"]["rollout"] = bodies.rollout("RolledBack")
    assert terminal.run("set version tiny-e3 v2 --wait") is Exit.DEGRADED


def test_what_the_spec_says_already_is_skipped() -> None:
    terminal = stage()
    assert terminal.run("set version tiny-e3 v1 --uri file:///v1") is Exit.HEALTHY
    assert terminal.cluster.applied == []
    assert "skipped set version: the spec of expert 'tiny-e3' asks for v1" in (
        terminal.progress.getvalue()
    )


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ("v3", r"never had a version 'v3' \(it had v1, v2\), so that --uri and --sha256"),
        ("v3 --uri file:///x --sha256 abc", "--sha256 is 'abc'; it is 64 digits"),
        (f"v2 --sha256 {'0' * 64}", "is a name for exactly one artifact"),
    ],
)
def test_a_version_that_cannot_be_is_refused(flags: str, text: str) -> None:
    terminal = stage()
    with pytest.raises(Refused, match=text):
        terminal.run(f"set version tiny-e3 {flags}")
    assert terminal.cluster.applied == []


def operator(version: str) -> Body:
    labels = {
        "app.kubernetes.io/name": "moeops",
        "app.kubernetes.io/component": "operator",
        "app.kubernetes.io/version": version,
    }
    containers = [{"image": f"registry.example.com/moeops-operator:{version}"}]
    return {
        "kind": "Deployment",
        "metadata": {"name": "moeops-operator", "namespace": "moeops-system", "labels": labels},
        "spec": {"replicas": 2, "template": {"spec": {"containers": containers}}},
        "status": {"readyReplicas": 1},
    }


def test_versions_are_of_this_command_and_of_the_operator() -> None:
    terminal = Terminal(operator("9.9.9"))
    assert terminal.run("version") is Exit.HEALTHY
    mine, theirs = terminal.lines()
    assert mine.startswith("kubectl moe 0.")
    assert theirs == (
        "operator 9.9.9 (moeops-system/moeops-operator, ready 1/2, "
        "registry.example.com/moeops-operator:9.9.9)"
    )
    assert "pipx install" in terminal.progress.getvalue()
    terminal.clear()
    terminal.run("version --client")
    assert terminal.lines() == [mine]
    bare = Terminal()
    bare.run("version")
    assert bare.lines() == [mine, "operator: none in this cluster"]


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("out", "environ", "colour"),
    [
        pytest.param(Tty(), {"TERM": "xterm"}, True, id="terminal"),
        pytest.param(Tty(), {}, True, id="terminal of unknown kind"),
        pytest.param(Tty(), {"NO_COLOR": "1"}, False, id="NO_COLOR"),
        pytest.param(Tty(), {"NO_COLOR": ""}, True, id="NO_COLOR that is empty says nothing"),
        pytest.param(Tty(), {"TERM": "dumb"}, False, id="dumb terminal"),
        pytest.param(io.StringIO(), {"TERM": "xterm"}, False, id="pipe"),
    ],
)
def test_colour_is_for_terminals_that_want_it(
    out: io.StringIO, environ: dict[str, str], colour: bool
) -> None:
    assert coloured(out, environ) is colour


def test_no_colour_and_no_terminal_mean_plain_text(tmp_path: Path) -> None:
    """Every verb's help, and a verb itself, through a pipe and with NO_COLOR."""
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}, {}):
        for line in ([], *([verb.name] for verb in VERBS[:2])):
            done = subprocess.run(
                [sys.executable, "-m", "kubectl_moe", *line, "--help"],
                env={**os.environ, **environment, "KUBECONFIG": str(tmp_path / "absent")},
                capture_output=True,
                text=True,
                check=True,
            )
            assert "\x1b" not in done.stdout + done.stderr
