"""What a shell is told at its cursor: decided from words, from a cluster, and by a real kubectl."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from kubectl_moe.completer import LIMIT_NAME, choices
from kubectl_moe.completing import wanted
from kubectl_moe.decide import Refused
from kubectl_moe.grammar import Words
from kubectl_moe.names import UsageError
from tests.kube.fixtures import ROOT
from tests.kube.server import KubeServer
from tests.kubectl import bodies
from tests.kubectl.fake_cluster import FakeCluster
from tests.kubectl.terminal import Terminal

KUBECTL = ROOT / ".moe" / "bin" / "kubectl"


@pytest.mark.parametrize(
    ("line", "words", "some"),
    [
        pytest.param("", Words.NOTHING, {"get", "rollback", "top"}, id="verbs"),
        pytest.param("-n test ro", Words.NOTHING, {"rollback"}, id="verbs behind a flag"),
        pytest.param("status ", Words.SHOWN, set(), id="target"),
        pytest.param("promote ti", Words.TRIED, set(), id="target without mixtures"),
        pytest.param("list ", Words.KIND, set(), id="an alias of a verb"),
        pytest.param("get experts ", Words.NAME, set(), id="name of a kind"),
        pytest.param("get -", Words.NOTHING, {"--output", "--help", "--namespace"}, id="flags"),
        pytest.param("top -o ", Words.NOTHING, {"json", "wide"}, id="values behind a flag"),
        pytest.param("top --output=js", Words.NOTHING, {"json"}, id="values within a word"),
        pytest.param("top --output = js", Words.NOTHING, {"json"}, id="as bash splits it"),
        pytest.param("top -w --sort-by ", Words.NOTHING, {"delay"}, id="behind a switch"),
        pytest.param("rollback tiny-e3 --to ", Words.PAST, set(), id="versions"),
        pytest.param("diff tiny-e3 1 ", Words.PAST, set(), id="the second revision"),
        pytest.param("-ntest routing tiny --gate ", Words.GATE, set(), id="gates of a mixture"),
        pytest.param("set ", Words.NOTHING, {"version"}, id="what is set"),
        pytest.param("set version ", Words.TRIED, set(), id="whose version"),
        pytest.param("lint a.yaml ", Words.FILE, set(), id="files, again and again"),
        pytest.param("completion --install ", Words.FOLDER, set(), id="a value or none"),
        pytest.param("--context ", Words.CONTEXT, set(), id="contexts"),
        pytest.param("status tiny --namespace ", Words.NAMESPACE, set(), id="namespaces"),
        pytest.param("status tiny more", Words.NOTHING, set(), id="nothing is left to say"),
        pytest.param("dance ", Words.NOTHING, {"get"}, id="a verb that there is not"),
    ],
)  # fmt: skip
def test_what_may_stand_there(line: str, words: Words, some: set[str]) -> None:
    asked = wanted(line.split(" "))
    assert asked.words is words
    assert some <= {word for word, _ in asked.fixed}


def test_a_flag_is_offered_once() -> None:
    offered = {word for word, _ in wanted(["top", "-w", "-o", "json", "-"]).fixed}
    assert "--sort-by" in offered
    assert not offered & {"--watch", "--output"}


def test_values_before_are_known_by_name() -> None:
    asked = wanted(["-ntest", "rollback", "gate/tiny-gate", "--context=here", "--to", ""])
    assert asked.said == {
        "namespace": "test",
        "target": "gate/tiny-gate",
        "context": "here",
        "to": "",
    }


CLUSTER = FakeCluster(
    [
        *(bodies.mixture(), bodies.gate(), bodies.expert(phase="Serving")),
        *(bodies.revision(1, "v1"), bodies.revision(2, "v2"), bodies.revision(3, "v1")),
        *(bodies.epoch(4, e3="v1"), bodies.epoch(5, e3="v2")),
    ]
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("status ", [("tiny", ""), ("tiny-e3", "v1 Serving"), ("gate/tiny-gate", "g1")]),
        ("history mixture/", [("mixture/tiny", "")]),
        ("history ", [("mixture/tiny", ""), ("tiny-e3", "v1 Serving"), ("gate/tiny-gate", "g1")]),
        ("abort ", [("tiny-e3", "v1 Serving"), ("gate/tiny-gate", "g1")]),
        ("abort ex/ti", [("ex/tiny-e3", "v1 Serving")]),
        ("abort mixture/", []),
        ("get gates ", [("tiny-gate", "g1")]),
        ("routing tiny --gate ", [("tiny-gate", "g1")]),
        ("routing other --gate ", []),
        (
            "rollback tiny-e3 --to ",
            [("v1", "revision 3"), ("v2", "revision 2"), ("3", "v1"), ("2", "v2"), ("1", "v1")],
        ),
        ("set version tiny-e3 ", [("v1", "revision 3"), ("v2", "revision 2")]),
        ("history mixture/tiny --revision ", [("5", bodies.CREATED), ("4", bodies.CREATED)]),
    ],
)
def test_names_come_from_the_cluster(line: str, expected: list[tuple[str, str]]) -> None:
    assert list(choices(wanted(line.split(" ")), CLUSTER)) == expected


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with kubectl, this plugin, and its completion as `--install` writes it."""
    folder = tmp_path_factory.mktemp("bin")
    plugin = folder / "kubectl-moe"
    plugin.write_text(f'#!/bin/sh\nexec {sys.executable} -m kubectl_moe "$@"\n')
    plugin.chmod(0o755)
    terminal = Terminal()
    terminal.run(f"completion --install {folder}")
    assert f"completes `kubectl moe` by {folder}/kubectl_complete-moe" in (
        terminal.progress.getvalue()
    )
    return os.pathsep.join([str(folder), str(KUBECTL.parent), os.environ["PATH"]])


def complete(path: str, kubeconfig: str, *words: str) -> list[str]:
    done = subprocess.run(
        ["kubectl", "__complete", "moe", *words],
        env={**os.environ, "PATH": path, "KUBECONFIG": kubeconfig, LIMIT_NAME: "60s"},
        capture_output=True,
        text=True,
        check=True,
    )
    told = [line for line in done.stderr.splitlines() if line]
    assert all(line.startswith(("[Debug]", "Completion ended")) for line in told), told
    return done.stdout.splitlines()


def await_list(kube_server: KubeServer, namespace: str, plural: str) -> None:
    """Ask until the server has filled its cache of a new kind; until then it says 429."""
    while True:
        try:
            kube_server.request("GET", f"/apis/moeops.dev/v1alpha1/namespaces/{namespace}/{plural}")
            return
        except HTTPError as error:
            if error.code != 429:
                raise


def test_a_real_kubectl_completes_from_a_real_cluster(
    kube_server: KubeServer, namespace: str, path: str
) -> None:
    body: dict[str, Any] = {
        "apiVersion": "moeops.dev/v1alpha1",
        "kind": "Expert",
        "metadata": {"name": "tiny-e3"},
        "spec": {
            "mixtureRef": {"name": "tiny"},
            "expertId": "e3",
            "layers": [0],
            "version": "v1",
            "artifact": {"uri": "file:///e3", "sha256": bodies.sha("v1")},
        },
    }
    kube_server.request("POST", f"/apis/moeops.dev/v1alpha1/namespaces/{namespace}/experts", body)
    for plural in ("mixtures", "experts", "gates"):
        await_list(kube_server, namespace, plural)
    config = str(kube_server.kubeconfig(namespace))
    assert complete(path, config, "rollb") == [
        "rollback\tserve an earlier version or epoch, whatever the spec says",
        ":4",
    ]
    assert complete(path, config, "status", "tiny") == ["tiny-e3", ":4"]
    assert complete(path, config, "-n", "elsewhere", "status", "") == [":4"]
    assert f"{namespace}\tActive" in complete(path, config, "status", "-n", "test-")
    assert complete(path, config, "--context", "") == ["test", ":4"]
    assert complete(path, config, "lint", "") == [":0"]


def test_without_a_cluster_nothing_is_offered_and_nothing_said(tmp_path: Path, path: str) -> None:
    assert complete(path, str(tmp_path / "absent"), "status", "") == [":4"]
    silent = tmp_path / "silent"
    silent.write_text("no: [yaml")
    assert complete(path, str(silent), "status", "--context", "") == [":4"]


def test_bash_completes_the_program_itself(path: str) -> None:
    script = """
        source <(kubectl-moe completion bash 2>/dev/null)
        COMP_WORDS=(kubectl-moe top --sort-by de) COMP_CWORD=3
        _kubectl_moe
        echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-euc", script],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "delay\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_what_their_shell_reads(shell: str, tmp_path: Path) -> None:
    terminal = Terminal()
    terminal.run(f"completion {shell}")
    assert "kubectl-moe __complete" in terminal.out.getvalue()
    assert "# load it" in terminal.progress.getvalue()
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} to read it")
    script = tmp_path / "script"
    script.write_text(terminal.out.getvalue())
    subprocess.run([shell, "-n", str(script)], check=True)


def test_the_program_of_another_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "kubectl_complete-moe"
    theirs.write_text("#!/bin/sh\n")
    with pytest.raises(Refused, match="is there and is another's"):
        Terminal().run(f"completion --install {tmp_path}")
    assert theirs.read_text() == "#!/bin/sh\n"
    with pytest.raises(Refused, match="cannot be written"):
        Terminal().run(f"completion --install {tmp_path}/absent")
    with pytest.raises(UsageError, match="name a shell"):
        Terminal().run("completion")
