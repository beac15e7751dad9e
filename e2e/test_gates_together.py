"""A gate and what it belongs to: tried out together, kept apart, missed. Clients never notice.

Clients read all the time, also those that still hold the old gate; each answer has the bits of the
old pair or of the new one, whole, unless it is told to be degraded: on a machine that has no time
for some worker another answers.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from transformers import MixtralForCausalLM

import moe_client
from e2e.stage.kube import Body, KubectlError, condition, wait_for
from e2e.stage.restore import AT_ONCE
from e2e.stage.tiny import Models, Tiny
from e2e.test_gates import TRIED, weights
from e2e.test_held import gate, reason, served
from e2e.test_operator_death import kill_operator
from examples.tiny import model as example
from examples.tiny.publish import ROLLOUTS, SERVE
from moe_client.sessions import SessionState
from moe_core.pins import pinned
from moe_core.table import Table
from moe_operator.fit import accepts

OLD, NEW = ("v1", "v1"), ("v2", "v2-better")
STEPS = {**TRIED, "steps": [{"weightPercent": 50, "pauseSeconds": 2}]}
# Of an expert that is tried out with it the gate's steps count. What was replaced stays warm, so
# that the next scenario finds it at once.
OF_EXPERT = {"minRequests": 20, "scaleDownDelaySeconds": 300}
TEXT = example.heldout("scripture")[:48]


def together(version: str, accepted: str) -> Body:
    """Return the gate of which this version accepts one of e3 only."""
    body = gate(version, {"e3": [accepted]})
    body["spec"]["rollout"] = STEPS if version != "v1" else AT_ONCE
    return body


def better() -> Body:
    body: Body = yaml.safe_load((ROLLOUTS / "e3-v2-better.yaml").read_text())
    body["spec"]["rollout"] = OF_EXPERT
    return body


@pytest.fixture(scope="module")
def references(models: Models) -> dict[tuple[str, str], torch.Tensor]:
    """Return the logits of the text by both pairs of versions, each in one process."""
    new, sharp = example.load(torch.bfloat16), weights()
    example.replace_expert(new, 3, example.load_version("expert-3-better"))
    for layer, block in enumerate(new.model.layers):
        router: Any = block.mlp.gate
        sharper = sharp[layer] * np.asarray(1.125, sharp[layer].dtype)
        with torch.no_grad():
            router.weight.copy_(torch.from_numpy(sharper.astype(np.float32)))
    moe_client.use_local(new)
    return {OLD: logits(models.local), NEW: logits(new)}


@torch.inference_mode()
def logits(model: MixtralForCausalLM) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=torch.tensor([list(TEXT)]), use_cache=False).logits
    return found


class Readers:
    """Calls of new sessions, one after another; whatever fails or has other bits is kept.

    Answers that are told to be degraded are only counted.
    """

    def __init__(self, references: dict[tuple[str, str], torch.Tensor]) -> None:
        self.references = references
        self.seen = dict.fromkeys(references, 0)
        self.degraded = 0
        self.wrong: list[str] = []

    def look(self, answer: torch.Tensor, state: SessionState) -> None:
        for pair, right in self.references.items():
            if torch.equal(answer, right):
                self.seen[pair] += 1
                return
        if state.degraded:
            self.degraded += 1
        else:
            self.wrong.append(f"an answer has the bits of neither pair: {state}")


@contextmanager
def reading(
    tiny: Tiny, models: Models, references: dict[tuple[str, str], torch.Tensor]
) -> Iterator[Readers]:
    """Read in new sessions as long as this lasts; the client was there before all changes."""
    readers, over = Readers(references), threading.Event()
    with moe_client.attach(models.remote, tiny.addresses(), mixture="tiny") as attachment:

        def read() -> None:
            while not over.is_set():
                try:
                    answer = logits(models.remote)
                    (state,) = attachment.last
                    readers.look(answer, state)
                except moe_client.Repinned:
                    pass  # its versions were taken back under way: it is to be called again
                except Exception as error:
                    readers.wrong.append(f"{type(error).__name__}: {error}")

        thread = threading.Thread(target=read)
        thread.start()
        try:
            wait_for("somebody reads", lambda: sum(readers.seen.values()) or readers.wrong, 30)
            yield readers
        finally:
            over.set()
            thread.join()


def apart(tiny: Tiny) -> list[str]:
    """Return the pairs that do not fit of what sessions are on by the table as it is."""
    body = tiny.kube.get("routingtable", "tiny")
    assert body is not None
    table = Table.from_object(body)
    (one,), row = table.gates, table.expert("e3")
    assert row is not None
    found = []
    for began in range(max(1, table.epoch - 6), table.epoch + 1):
        for session in (f"s{number}" for number in range(16)):
            variant, version = pinned(one, session, began), pinned(row, session, began)
            if version is not None and not accepts(variant, "e3", version.version):
                found.append(f"epoch {table.epoch}: {variant.version} with {version.version}")
    return found


@pytest.mark.parametrize("first", ["gate", "expert"])
def test_a_pair_is_tried_out_in_either_order_though_the_operator_dies(
    tiny: Tiny, models: Models, references: dict[tuple[str, str], torch.Tensor], first: str
) -> None:
    tiny.kube.apply(together("v1", "v1"))
    order = [together("v2", "v2-better"), better()]
    one, other = order if first == "gate" else order[::-1]
    wrong: list[str] = []

    def both() -> bool:
        wrong.extend(apart(tiny))
        return served(tiny) == NEW

    with reading(tiny, models, references) as readers:
        tiny.kube.apply(one)
        kind, name = ("gate", "tiny-gate") if first == "gate" else ("expert", "tiny-e3")
        wait_for("it waits for the other", lambda: reason(tiny, kind, name) == "Held", 30)
        assert served(tiny) == OLD
        kill_operator()
        tiny.kube.apply(other)
        wait_for("both are served", both, 60)
    assert not readers.wrong, "\n".join(readers.wrong)
    assert wrong == []
    assert all(readers.seen.values()), readers.seen
    (row,) = tiny.kube.table("tiny")["gates"]
    assert row["rollout"]["weights"] == tiny.kube.table_row("tiny", "tiny-e3")["rollout"]["weights"]


def test_a_pair_is_taken_back_whole_and_no_client_is_left_with_half(
    tiny: Tiny, models: Models, references: dict[tuple[str, str], torch.Tensor]
) -> None:
    tiny.kube.apply(together("v1", "v1"))
    new = together("v2", "v2-better")
    new["spec"]["rollout"] = {**STEPS, "steps": [{"weightPercent": 50, "pauseSeconds": 60}]}

    def seen_by_some() -> bool:
        (row,) = tiny.kube.table("tiny")["gates"]
        return bool("candidate" in row and row["rollout"]["weights"])

    with reading(tiny, models, references) as readers:
        tiny.kube.apply(better(), new)
        wait_for("some sessions see both", seen_by_some, 60)
        wait_for("somebody has read by both", lambda: readers.seen[NEW], 30)
        epoch = tiny.kube.table("tiny")["epoch"]
        assert tiny.kube.moe("abort", "gate/tiny-gate", "--reason", "not today").returncode in (
            0,
            2,
        )
        wait_for("both are taken back", lambda: not seen_by_some(), 10)
        before = dict(readers.seen)
        wait_for("somebody reads on", lambda: readers.seen[OLD] > before[OLD] + 5, 30)
    assert not readers.wrong, "\n".join(readers.wrong)
    table = tiny.kube.table("tiny")
    assert table["epoch"] == epoch + 1
    assert "candidate" not in tiny.kube.table_row("tiny", "tiny-e3")
    assert reason(tiny, "expert", "tiny-e3") == "Held"


def stables(tiny: Tiny) -> dict[str, str]:
    """Return the versions that the table serves, by Expert."""
    rows = tiny.kube.table("tiny")["experts"]
    return {row["name"]: row["stable"]["version"] for row in rows if "stable" in row}


def message(tiny: Tiny) -> str:
    body = tiny.kube.get("gate", "tiny-gate")
    assert body is not None
    return str(condition(body, "Progressing").get("message", ""))


def test_an_expert_that_a_gate_lists_is_missed_by_name_and_what_is_served_goes_on(
    tiny: Tiny, models: Models
) -> None:
    with pytest.raises(KubectlError, match=r"the routing table names it"):
        tiny.kube.delete("expert", "tiny-e7")
    before = stables(tiny)
    tiny.kube.run("annotate", "expert", "tiny-e7", "moeops.dev/delete-anyway=yes", "--overwrite")
    tiny.kube.delete("expert", "tiny-e7")

    def gone() -> bool:
        return "stable" not in tiny.kube.table_row("tiny", "tiny-e7")

    try:
        wait_for("the table has no version of it", gone, 30)
        assert stables(tiny) == {name: v for name, v in before.items() if name != "tiny-e7"}
        wait_for("the gate says what is missing", lambda: "id e7" in message(tiny), 30)
        assert reason(tiny, "gate", "tiny-gate") == "ExpertsMissing"
        with moe_client.attach(models.remote, tiny.addresses(), mixture="tiny"):
            assert bool(torch.isfinite(logits(models.remote)).all())
        tiny.kube.apply(together("v2", "v1"))
        wait_for("a change waits for it", lambda: "id e7" in message(tiny), 30)
        assert served(tiny) == OLD
    finally:
        tiny.kube.apply(SERVE / "gate.yaml", SERVE / "e7.yaml")


def test_a_gate_waits_while_an_expert_is_tried_out_and_says_for_whom(
    tiny: Tiny, models: Models, references: dict[tuple[str, str], torch.Tensor]
) -> None:
    version = better()
    slow = {"steps": [{"weightPercent": 50, "pauseSeconds": 8}], **OF_EXPERT}
    version["spec"]["rollout"] = slow
    new = gate("v2", {})
    new["spec"]["rollout"] = AT_ONCE
    said = set()

    def changed() -> bool:
        body = tiny.kube.get("gate", "tiny-gate")
        assert body is not None
        progressing = condition(body, "Progressing")
        if progressing.get("reason") == "WouldConfound":
            said.add(progressing["message"])
        (row,) = tiny.kube.table("tiny")["gates"]
        trial = "candidate" in tiny.kube.table_row("tiny", "tiny-e3")
        assert not (trial and "candidate" in row), "both are on trial at once"
        return served(tiny) == NEW

    # Until the gate changes its rows go by v1 of it; those two pairs are not among the references.
    with moe_client.attach(models.remote, tiny.addresses(), mixture="tiny"):
        tiny.kube.apply(version)
        wait_for(
            "e3 is tried out", lambda: "candidate" in tiny.kube.table_row("tiny", "tiny-e3"), 40
        )
        tiny.kube.apply(new)
        for _ in range(30):
            logits(models.remote)
        wait_for("both have changed", lambda: (logits(models.remote), changed())[1], 60)
        wait_for(
            "the new pair answers",
            lambda: torch.equal(logits(models.remote), references[NEW]),
            20,
        )
    assert any("waits for the rollouts of e3 to end" in told for told in said)
