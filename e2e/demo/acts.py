"""The acts of the story. Each changes something on the cluster and returns what it measured."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch

import moe_client
from e2e.demo.promises import Measured
from e2e.demo.telling import Teller
from e2e.stage import nodes
from e2e.stage.routers import counters
from e2e.stage.tiny import Models, Tiny
from examples.tiny import model as example
from examples.tiny.domains import DOMAINS
from kubectl_moe.health import Exit
from moe_client.figures import Report
from moe_client.recording import Recording
from moe_client.steady import SteadyLoad


@dataclass
class Stage:
    """What the acts have in common, and the promises as they are measured."""

    tiny: Tiny
    models: Models
    tell: Teller
    measured: list[Measured] = field(default_factory=list)

    def promise(self, what: str, value: float, limit: float, unit: str = "") -> None:
        self.measured.append(Measured(what, value, limit, unit))


def apply(stage: Stage) -> None:
    """From nothing to Ready."""
    seconds = stage.tiny.apply()
    stage.tell.line(f"everything Ready after {seconds:.0f} s")
    stage.promise("apply of the example to Ready, images loaded", seconds, 60, "s")


def read(stage: Stage) -> None:
    """Held-out text of each domain through the model with remote experts."""
    models, tiny = stage.models, stage.tiny
    plain = example.load(torch.bfloat16)
    rows, worst = [], 0.0
    with moe_client.attach(models.remote, tiny.addresses(), mixture=tiny.mixture):
        for domain in DOMAINS:
            text = example.heldout(domain)[:4096]
            bits = example.bits_per_byte(models.remote, text)
            delta = models.max_difference(text[:512])
            other = max_difference(models.local, plain, text[:512])
            worst = max(worst, delta)
            rows.append((domain, f"{bits:.3f}", f"{delta}", f"{other:.2g}"))
    headers = ("text", "bits per byte", "max |Δlogit|, one process", "transformers' own kernels")
    stage.tell.table(headers, rows)
    stage.promise("Δlogit, healthy, Dispatch, against moeops_local", worst, 0.0)


@torch.inference_mode()
def max_difference(one: torch.nn.Module, other: torch.nn.Module, text: bytes) -> float:
    """Return max |Δlogit| between two models over a text."""
    tokens = torch.tensor([list(text)])
    logits = [model(input_ids=tokens, use_cache=False).logits for model in (one, other)]
    return float((logits[0] - logits[1]).abs().max())


def worsen(stage: Stage, load: SteadyLoad) -> None:
    """A version that is finite, fast and wrong: the golden set finds it before any session does."""
    since, began = load.now(), time.monotonic()
    stage.tiny.roll_out("v2-worse")
    follow(stage, "v2-worse", "RolledBack")
    report = load.report(since)
    stage.tell.line(
        f"taken back after {time.monotonic() - began:.0f} s, at weight 0: no session saw it;"
        f" {report.requests} requests meanwhile, {report.failed} failed"
    )
    stage.promise("failed requests while the worse version was tried", report.failed, 0)


def improve(stage: Stage, load: SteadyLoad) -> None:
    """The better version: the golden set, then step by step, until it is promoted."""
    since = load.now()
    stage.tiny.roll_out("v2-better")
    follow(stage, "v2-better", "Promoted")
    rollout = stage.tiny.kube.table_row("tiny", "tiny-e3")["rollout"]
    stage.tell.line(f"it had passed: {rollout['evaluated']}")
    report = load.report(since)
    stage.tell.line(f"{report.requests} requests meanwhile, {report.failed} failed")
    stage.promise("failed requests in a canary", report.failed, 0)


def break_it(stage: Stage, load: SteadyLoad) -> None:
    """A broken version of another expert, which takes itself back."""
    since, began = load.now(), time.monotonic()
    stage.tiny.roll_out("v2-broken", "e2")
    follow(stage, "v2-broken", "RolledBack", "tiny-e2")
    rollout = stage.tiny.kube.table_row("tiny", "tiny-e2")["rollout"]
    sent = counters(stage.tiny.addresses(), rollout["target"]["sha256"])
    report = load.report(since)
    rows = sum(c.rows for c in sent)
    seconds = time.monotonic() - began
    stage.tell.line(f"taken back after {seconds:.0f} s: {rollout['reason']}")
    stage.tell.line(
        f"{rows} rows were sent to it, {sum(c.nonfinite_rows for c in sent)} came back not finite"
        f" and were not used; {report.failed} of {report.requests} requests failed"
    )
    stage.promise("failed requests while the broken version was tried", report.failed, 0)


def roll_back(stage: Stage, load: SteadyLoad) -> None:
    """`kubectl moe rollback` of the promoted version."""
    since, began_ms = load.now(), time.time() * 1000
    sha256 = stage.tiny.kube.table_row("tiny", "tiny-e3")["stable"]["sha256"]
    done = stage.tiny.kube.moe("rollback", "tiny-e3", "--to", "v1", "--reason", "the demo")
    asked = time.time() - began_ms / 1000
    if done.returncode != 0:
        raise RuntimeError(f"kubectl moe rollback: {done.stderr}")
    settled = stage.tiny.kube.moe("status", "ex/tiny-e3", "--wait")
    if settled.returncode != Exit.DEGRADED:  # as a version that was taken back is
        raise RuntimeError(f"kubectl moe status --wait: {settled.stdout}{settled.stderr}")
    time.sleep(1)  # so that a row of the revoked version that came late would be counted
    last_ms = max((c.last_used_ms for c in counters(stage.tiny.addresses(), sha256)), default=0)
    seconds = max((last_ms - began_ms) / 1000, 0)
    report = load.report(since)
    stage.tell.line(
        f"last row of v2-better {seconds:.2f} s after the command was given,"
        f" which took {asked:.2f} s to start and to ask"
    )
    stage.promise(
        "rollback, from the command to the last row of the revoked version", seconds, 1, "s"
    )
    stage.promise("failed requests in a rollback", report.failed, 0)


def kill_worker(stage: Stage, load: SteadyLoad) -> None:
    """SIGKILL to a worker of e3's stable version, which the load asks all the time."""
    calm = load.now()
    time.sleep(3)
    before = load.report(calm).longest_stall_s
    stage.tell.line(f"longest stall in the 3 s before: {before * 1000:.0f} ms")
    since = load.now()
    stable = stage.tiny.kube.table_row("tiny", "tiny-e3")["stable"]["sha256"]
    pod = stage.tiny.pods("tiny-e3", digest=stable[:10])[0]
    nodes.kill_process(pod, "moe_worker")
    time.sleep(3)
    report = load.report(since)
    show(stage, f"{pod['metadata']['name']} got SIGKILL", report)
    stage.promise("failed requests when a worker is killed", report.failed, 0)
    stage.promise("longest stall when a worker is killed", report.longest_stall_s, 0.1, "s")
    stage.tiny.wait_ready()


def lose_node(stage: Stage, load: SteadyLoad) -> None:
    """Stop a node that carries a router too, and bring it back."""
    stage.tiny.wait_spread()
    kube, node = stage.tiny.kube, stage.tiny.pods(component="router")[0]["spec"]["nodeName"]
    since = load.now()
    nodes.stop(node)
    time.sleep(10)
    report = load.report(since)
    show(stage, f"node {node} is off", report)
    stage.promise("failed requests in the loss of a node with two replicas", report.failed, 0)
    stage.promise("longest stall when a node falls silent", report.longest_stall_s, 0.4, "s")
    began = time.monotonic()
    nodes.start(node, kube)
    stage.tiny.wait_ready()
    stage.tell.line(f"node back, every replica ready after {time.monotonic() - began:.0f} s")
    stage.tiny.wait_spread()
    stage.tell.line(
        f"replicas of everything on two nodes again after {time.monotonic() - began:.0f} s;"
        f" {load.report(since).failed} requests failed meanwhile"
    )


def show(stage: Stage, what: str, report: Report) -> None:
    """Print what a fault did to the load."""
    stage.tell.line(
        f"{what}: {report.requests} requests, {report.failed} failed,"
        f" longest stall {report.longest_stall_s * 1000:.0f} ms"
    )
    by_rung: dict[str, int] = {}
    for (rung, _), rows in report.rungs.items():
        by_rung[rung] = by_rung.get(rung, 0) + rows
    said = ", ".join(f"{rows} by {rung}" for rung, rows in by_rung.items()) or "none"
    stage.tell.line(f"rows answered by another than planned: {said}")


def follow(stage: Stage, version: str, outcome: str, name: str = "tiny-e3") -> None:
    """Print each step of a rollout until it has ended so."""

    def rollout() -> dict[str, str]:
        found = stage.tiny.rollout(name)
        return found if found.get("version") == version else {}

    stage.tell.follow(
        lambda: rollout().get("message", ""), lambda: rollout().get("outcome") == outcome, 180
    )


def recordings(stage: Stage) -> Recording:
    """Return requests of all domains, most of them of the domain that e3 is for."""
    return stage.models.recording(("scripture", *DOMAINS, "scripture"))
