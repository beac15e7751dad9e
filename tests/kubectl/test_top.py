"""`kubectl moe top`: from what workers counted to what a person reads."""

from __future__ import annotations

import io
import json
import shutil
from typing import Any

import pytest
import yaml

from kubectl_moe.cluster import ClusterError, NotFound
from kubectl_moe.health import Exit
from kubectl_moe.names import UsageError
from moe_core.worker_load import WorkerLoad
from tests.kubectl import bodies
from tests.kubectl.terminal import Terminal

Body = dict[str, Any]


def router(name: str, mixture: str = "tiny") -> Body:
    labels = {"moeops.dev/mixture": mixture, "moeops.dev/component": "router"}
    metadata = {"name": name, "labels": labels}
    return {"kind": "Pod", "metadata": metadata, "status": {"phase": "Running"}}


def other(body: Body, name: str, mixture: str = "tiny") -> Body:
    """Return a Deployment or a pod of another expert."""
    labels = {"moeops.dev/expert": name, "moeops.dev/mixture": mixture}
    metadata = {**body["metadata"], "name": f"{name}-{body['metadata']['name']}"}
    return {**body, "metadata": {**metadata, "labels": {**metadata["labels"], **labels}}}


def counted(second: float, busy: float, rows: int, incarnation: str = "one") -> WorkerLoad:
    """Return what a worker counted that is busy for a share of its time, in requests of 10 rows.

    Each waits for 5 ms.
    """
    asked = int(rows * second / 10)
    return WorkerLoad(incarnation, 7, int(1e6 * busy * second), 10 * asked, asked, 5_000 * asked)


@pytest.fixture
def terminal() -> Terminal:
    """A canary of e3 whose new version is idle, and e5 with one worker; two routers hear them."""
    rollout = bodies.rollout("Progressing")
    canary = bodies.expert(version="v2", candidate="v2", weight="25%", rollout=rollout)
    alone = bodies.expert("tiny-e5")
    alone["spec"] = {**alone["spec"], "expertId": "e5"}
    terminal = Terminal(
        *(bodies.mixture(), canary, alone, router("r1"), router("r2")),
        *(bodies.deployment("v1"), bodies.deployment("v2", ready=1)),
        other(bodies.deployment("v1", ready=1), "tiny-e5"),
        *(bodies.pod("w1", "v1"), bodies.pod("w2", "v1"), bodies.pod("w3", "v2")),
        other(bodies.pod("w5", "v1"), "tiny-e5"),
    )

    def hear() -> None:
        now = 100 + terminal.now
        loads = {"w1": counted(now, 0.9, 400), "w2": counted(now, 0.5, 200)}
        terminal.routers.counted = {"r1": {}, "r2": {}}
        terminal.routers.heard = {
            "r1": {**loads, "w3": counted(now, 0.0, 0)},
            "r2": {**loads, "tiny-e5-w5": counted(now, 0.95, 1_000)},
        }

    terminal.routers.before_reading = hear
    return terminal


def test_each_version_has_a_line_and_the_most_loaded_is_the_first(terminal: Terminal) -> None:
    assert terminal.run("top tiny") is Exit.HEALTHY
    assert [line.split() for line in terminal.lines()] == [
        ["EXPERT", "VERSION", "ROLE", "READY", "UTIL", "LOAD", "DELAY", "ROWS/S", "QUEUED"],
        ["tiny-e3", "v1", "stable", "2/2", "70%", "1.40", "5.0ms", "600", "14"],
        ["tiny-e5", "v1", "stable", "1/2", "95%", "0.95", "5.0ms", "1,000", "7"],
        ["tiny-e3", "v2", "candidate", "25%", "1/2", "0%", "0.00", "0.0ms", "0.0", "7"],
    ]
    assert terminal.progress.getvalue().splitlines() == [
        "tiny: heard by 2 routers, last 2 s",
        "next: kubectl moe status ex/tiny-e3  # its versions and pods",
    ]
    assert terminal.routers.closed


@pytest.mark.parametrize(
    ("key", "first"),
    [
        *(("load", "e3 v1"), ("util", "e5 v1"), ("rows", "e5 v1"), ("queued", "e3 v1")),
        *(("ready", "e3 v2"), ("delay", "e3 v1"), ("name", "e3 v1")),
    ],
)
def test_what_is_asked_for_comes_first(terminal: Terminal, key: str, first: str) -> None:
    terminal.run(f"top --sort-by {key} --limit 1")
    (_, line) = terminal.lines()
    assert " ".join(line.split()[:2]) == f"tiny-{first}"


def test_programs_get_numbers(terminal: Terminal) -> None:
    terminal.run("top -o json --window 10s")
    said = json.loads(terminal.out.getvalue())
    assert (said["routers"], said["notCounted"], said["windowSeconds"]) == (2, [], 10.0)
    first = said["versions"][0]
    assert first == {
        "expert": "tiny-e3",
        "expertId": "e3",
        "mixture": "tiny",
        "version": "v1",
        "digest": bodies.sha("v1")[:10],
        "role": "stable",
        "replicas": {"wanted": 2, "ready": 2, "heard": 2},
        "load": 1.4,
        "utilizationPercent": 70.0,
        "queueDelayMilliseconds": 5.0,
        "serviceMilliseconds": 23.333,
        "rowsPerSecond": 600.0,
        "queuedRows": 14,
        "backlogSeconds": 0.0327,
    }
    terminal.clear()
    terminal.run("top -o yaml --window 10s")
    assert yaml.safe_load(terminal.out.getvalue())["versions"][0] == first
    assert "next:" not in terminal.progress.getvalue()


def test_names_come_in_the_order_asked_for(terminal: Terminal) -> None:
    terminal.run("top -o name --sort-by util")
    assert terminal.lines() == ["expert.moeops.dev/tiny-e5", "expert.moeops.dev/tiny-e3"]


def test_wide_has_what_else_is_known(terminal: Terminal) -> None:
    terminal.run("top -o wide --limit 1")
    titles, line = (text.split() for text in terminal.lines())
    assert titles[-6:] == ["MIXTURE", "ID", "DIGEST", "HEARD", "SERVICE", "BACKLOG"]
    assert line[-6:] == ["tiny", "e3", bodies.sha("v1")[:10], "2", "23ms", "33ms"]


def test_a_worker_that_nobody_hears_has_replicas_and_no_load(terminal: Terminal) -> None:
    hear = terminal.routers.before_reading

    def hear_less() -> None:
        hear()
        del terminal.routers.counted["r2"]

    terminal.routers.before_reading = hear_less
    terminal.run("top tiny")
    assert terminal.lines()[-1].split() == ["tiny-e5", "v1", "stable", "1/2", *("-" * 5)]
    assert "not counted: router r2: it is away" in terminal.progress.getvalue()


def test_a_worker_that_began_anew_counts_from_then_on(terminal: Terminal) -> None:
    hear = terminal.routers.before_reading

    def restart() -> None:
        hear()
        began = counted(terminal.now, 0.5, 100, f"{terminal.now >= 2}")
        for heard in terminal.routers.heard.values():
            heard["w1"] = began

    terminal.routers.before_reading = restart
    terminal.run("top tiny --window 4s --limit 1 --sort-by name -o json")
    (one,) = json.loads(terminal.out.getvalue())["versions"]
    assert one["replicas"]["heard"] == 2
    assert one["rowsPerSecond"] == 200.0  # of w2 alone


def test_watching_averages_over_what_it_saw_itself(terminal: Terminal) -> None:
    hear = terminal.routers.before_reading

    def until_then() -> None:
        hear()
        if terminal.now >= 14:
            raise KeyboardInterrupt

    terminal.routers.before_reading = until_then
    terminal.colour = True
    with pytest.raises(KeyboardInterrupt):
        terminal.run("top tiny -w")
    told = [line for line in terminal.lines() if line.startswith("tiny: ")]
    assert told[0] == "tiny: heard by 2 routers, last 1 s"
    assert told[-1] == "tiny: heard by 2 routers, last 10 s"
    assert "\x1b[31m95%\x1b[0m" in terminal.out.getvalue()
    assert "\x1b[33m70%\x1b[0m" in terminal.out.getvalue()
    assert terminal.routers.closed


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_not_overrun(terminal: Terminal) -> None:
    hear = terminal.routers.before_reading
    size = shutil.get_terminal_size().lines
    terminal.cluster.bodies += [
        other(bodies.deployment(f"v{number}"), "tiny-e5") for number in range(3, 3 + size)
    ]

    def once() -> None:
        hear()
        if terminal.now > 1:
            raise KeyboardInterrupt

    terminal.routers.before_reading = once
    terminal.out = Tty()
    with pytest.raises(KeyboardInterrupt):
        terminal.run("top tiny -w")
    assert len(terminal.lines()) == size - 1
    assert terminal.lines()[-1] == "7 more; --limit shows them"


def test_one_mixture_is_told_from_another(terminal: Terminal) -> None:
    terminal.cluster.bodies += [bodies.mixture("huge"), router("r9", "huge")]
    terminal.run("top tiny -o name")
    assert len(terminal.lines()) == 2
    terminal.clear()
    with pytest.raises(ClusterError, match="no router answers: router r9: it is away"):
        terminal.run("top huge")


@pytest.mark.parametrize(
    ("line", "error", "text"),
    [
        ("top other", NotFound, "no Mixture other"),
        ("top ex/tiny-e3", UsageError, "'ex/tiny-e3' is a Expert; this verb takes a mixture"),
        ("top -w -o json", UsageError, "-o json is printed once"),
    ],
)
def test_what_cannot_be_shown_is_said(
    terminal: Terminal, line: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        terminal.run(line)


def test_without_routers_there_is_no_load() -> None:
    with pytest.raises(ClusterError, match="no router of namespace test is running"):
        Terminal(bodies.mixture()).run("top")
