"""Served from nothing, exactly what one process computes, and quiet when there is nothing to do."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import moe_client
from e2e.conftest import ROOT
from e2e.stage.audit import AuditLog
from e2e.stage.kube import Kube, wait_for
from e2e.stage.tiny import Models, Tiny
from e2e.stage.traces import TRACED, named_traces
from e2e.stage.workers import mixed_batches
from examples.tiny import model as example
from examples.tiny.domains import DOMAINS
from examples.tiny.publish import SERVE, SETTINGS
from moe_client.recording import Recording


@pytest.fixture
def float32(kube: Kube, tmp_path: Path) -> Iterator[Tiny]:
    """A mixture of its own in float32: made from nothing by `moe split` and `kubectl apply`."""
    name = "tiny32"
    out = ROOT / ".moe" / "artifacts" / name
    settings = next(yaml.safe_load_all(SETTINGS.read_text()))
    settings["metadata"]["name"] = name
    for pods in ("routers", "workers"):
        settings["spec"][pods]["env"] = TRACED
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "moe_artifacts", "split", str(example.CHECKPOINT), str(out)]
    command += ["--mixture", name, "--dtype", "Float32", "--replicas", "1"]
    command += ["--uri-prefix", f"file:///moe/artifacts/{name}"]
    subprocess.run([*command, "--manifests", str(tmp_path / "settings.yaml")], check=True)
    kube.apply(out / "manifests")
    yield Tiny(kube, name)
    Tiny(kube, name).delete()


def assert_exact(tiny: Tiny, models: Models, recording: Recording) -> None:
    """Alone and among other requests, every logit is that of the model in one process."""
    texts = [example.heldout(domain)[:200] for domain in DOMAINS]
    with moe_client.attach(models.remote, tiny.addresses(), mixture=tiny.mixture) as attachment:
        assert [models.max_difference(text) for text in texts] == [0.0] * len(texts)
        before = mixed_batches(tiny)
        with tiny.load(recording, sessions=8) as load:
            assert [models.max_difference(text) for text in texts] == [0.0] * len(texts)
            report = load.report()
        assert mixed_batches(tiny) > before, "no batch mixed requests: nothing was shown"
        assert attachment.counters.failed == 0
    assert (report.failed, report.different) == (0, 0), report.failures


def test_from_nothing_in_float32_with_exact_logits(float32: Tiny) -> None:
    float32.wait_ready()
    models = Models.load(torch.float32)
    recording = models.recording()
    assert_exact(float32, models, recording)
    assert_routed(float32, recording)
    router = f"deployment/{float32.mixture}-router"
    assert named_traces(float32.kube, router, 7002) > 0, "the mixture is traced, as its env says"
    worker = float32.pods()[0]["metadata"]["name"]
    assert named_traces(float32.kube, f"pod/{worker}", 7102) > 0


def test_exact_logits_in_bfloat16(tiny: Tiny, models: Models, recording: Recording) -> None:
    assert_exact(tiny, models, recording)


def test_applying_again_and_waiting_writes_nothing(tiny: Tiny) -> None:
    tiny.kube.apply(SERVE)  # takes back what was patched between scenarios
    tiny.wait_ready()
    wait_until_quiet()
    log = AuditLog(ROOT / ".moe" / "audit")
    epoch = tiny.kube.table(tiny.mixture)["epoch"]
    said = tiny.kube.apply(SERVE)
    assert {line.split()[-1] for line in said.splitlines()} == {"unchanged"}
    assert quiet_for_a_while(log), log.writes()
    assert tiny.kube.table(tiny.mixture)["epoch"] == epoch


def wait_until_quiet() -> None:
    """Wait until the operator has written nothing for a while."""

    def quiet() -> bool:
        return quiet_for_a_while(AuditLog(ROOT / ".moe" / "audit"))

    wait_for("the operator has nothing left to write", quiet, 60)


def quiet_for_a_while(log: AuditLog) -> bool:
    """Return whether the operator wrote nothing until two of its sweeps of routers were over.

    The log is read up to a mark, so that what is not written yet is not taken for nothing.
    """
    time.sleep(12)
    seen = AuditLog(ROOT / ".moe" / "audit")
    log_mark = ("create", "configmap", "a-mark-in-the-log", "--dry-run=server")
    Kube("moe").run(*log_mark)
    wait_for("the log goes on", lambda: seen.writes("kubernetes-admin"), 30)
    return log.writes() == []


def test_generation_through_the_routers_gives_the_same_tokens(tiny: Tiny, models: Models) -> None:
    tokens = torch.tensor([list(example.heldout("code")[:48])])
    here = greedy(models.local, tokens)
    with moe_client.attach(models.remote, tiny.addresses(), mixture=tiny.mixture):
        there = greedy(models.remote, tokens)
    assert there == here


def assert_routed(tiny: Tiny, recording: Recording) -> None:
    """The router's own gate chooses as the model's does; weights differ in the last bits only."""
    with moe_client.RouterClient(tiny.addresses(), mixture=tiny.mixture) as client:
        for text in recording.texts:
            for asked in text.layers:
                sequences = (moe_client.Sequence("route", len(asked.hidden)),)
                answer = client.route(moe_client.Rows(asked.layer, asked.hidden, sequences))
                assert asked.expected is not None
                np.testing.assert_allclose(answer.hidden, asked.expected, rtol=1e-4, atol=1e-5)


def greedy(model: Any, tokens: torch.Tensor) -> list[list[int]]:
    """Return the tokens and the 24 that the model puts behind them."""
    made: list[list[int]] = model.generate(
        tokens, max_new_tokens=24, do_sample=False, pad_token_id=0
    ).tolist()
    return made
