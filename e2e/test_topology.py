"""A new gate prunes, merges, grows or just chooses anew; the old one brings all of it back."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

import moe_client
from e2e.conftest import ROOT
from e2e.stage.kube import Body, KubectlError, wait_for
from e2e.stage.reading import reading
from e2e.stage.tiny import Models, Tiny
from examples.tiny import logs
from examples.tiny import model as example
from examples.tiny.domains import DOMAINS
from examples.tiny.publish import SERVE
from examples.tiny.topology import make

TEXTS = [*(example.heldout(domain)[:96] for domain in DOMAINS), logs.text(logs.HELDOUT_SEED, 96)]
HALF = {
    "steps": [{"weightPercent": 50, "pauseSeconds": 3}],
    "minRequests": 20,
    "shadowPercent": 0,
    "scaleDownDelaySeconds": 2,
}


@pytest.fixture(scope="module")
def other() -> Models:
    """The model once more, for sessions that read while logits are compared."""
    return Models.load(torch.bfloat16)


def gate(path: Path) -> Body:
    """Return a Gate that half of the sessions try out first."""
    body: Body = yaml.safe_load(path.read_text())
    body["spec"]["rollout"] = HALF
    return body


def roll_out(tiny: Tiny, folder: Path) -> None:
    """Apply what a tool wrote: new experts as they are, then the gate."""
    manifests = sorted((folder / "manifests").glob("*.yaml"))
    tiny.kube.apply(*(path for path in manifests if path.name != "gate.yaml"))
    tiny.kube.apply(gate(folder / "manifests" / "gate.yaml"))


def served(tiny: Tiny) -> tuple[str, list[str]]:
    """Return the version of the gate that is served, and the experts that it lists."""
    (row,) = tiny.kube.table("tiny")["gates"]
    return str(row["stable"]["version"]), list(row["stable"]["experts"])


@torch.inference_mode()
def logits(tiny: Tiny, models: Models) -> list[torch.Tensor]:
    """Return what new sessions answer to all texts, as the mixture is served now."""
    with moe_client.attach(models.remote, tiny.addresses(), mixture="tiny") as attachment:
        found = [
            models.remote(input_ids=torch.tensor([list(text)]), use_cache=False).logits
            for text in TEXTS
        ]
        assert attachment.counters.failed == 0
    return found


@torch.inference_mode()
def in_one_process(models: Models) -> list[torch.Tensor]:
    """Return the logits of all texts by the model that has its experts itself."""
    return [
        models.local(input_ids=torch.tensor([list(text)]), use_cache=False).logits for text in TEXTS
    ]


def deleted(tiny: Tiny, expert: str) -> bool:
    """Delete an Expert, unless a gate that the table names still lists it."""
    try:
        tiny.kube.delete("expert", expert, wait=False)
    except KubectlError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "experts"),
    [("pruned", 7), ("merged", 7), ("grown", 9), ("gate-tuned", 8)],
)
def test_rolled_out_and_back_under_sessions_that_read(
    tiny: Tiny, models: Models, other: Models, name: str, experts: int
) -> None:
    folder = make(ROOT / ".moe" / "artifacts", name)
    before = logits(tiny, models)
    with reading(tiny, other) as readers:
        roll_out(tiny, folder)
        wait_for("the new gate is promoted", lambda: served(tiny)[0] == "v2", 240)
        assert len(served(tiny)[1]) == experts
        changed = logits(tiny, models)
        tiny.kube.apply(gate(SERVE / "gate.yaml"))
        wait_for("the old gate is back", lambda: served(tiny)[0] == "v1", 240)
        after = logits(tiny, models)
        wait_for("much was read", lambda: readers.sessions > 20, 60)
    assert readers.failures == []
    assert not all(torch.equal(a, b) for a, b in zip(before, changed, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(in_one_process(models), after, strict=True))
    for path in (folder / "manifests").glob("e*.yaml"):
        name = yaml.safe_load(path.read_text())["metadata"]["name"]
        wait_for(f"{name} may be deleted", partial(deleted, tiny, name), 60)
