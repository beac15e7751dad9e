"""What a session is promised when the version that it uses is taken back under it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import yaml

import moe_client
from e2e.stage.kube import Body, wait_for
from e2e.stage.tiny import Models, Tiny
from examples.tiny import model as example
from examples.tiny.publish import ROLLOUTS
from moe_core.pins import bucket

HALF = [{"weightPercent": 50, "pauseSeconds": 600}, {"weightPercent": 100}]


def on_trial_at_half(tiny: Tiny) -> str:
    """Let half of the new sessions see v2-better; return the name of one that will."""
    body: Body = yaml.safe_load((ROLLOUTS / "e3-v2-better.yaml").read_text())
    body["spec"]["rollout"]["steps"] = HALF
    tiny.kube.apply(body)
    wait_for("weight", lambda: tiny.expert()["status"].get("weight") == "50%", 90)
    salt = tiny.kube.table_row("tiny", "tiny-e3")["rollout"]["salt"]
    return next(name for name in map(str, range(100)) if bucket(salt, name) < 5_000)


class AtToken:
    """Notes the logits of each new token, and does something once, after so many of them."""

    def __init__(self, number: int, what: Callable[[], None]) -> None:
        self.logits: list[torch.Tensor] = []
        self._number, self._what = number, what

    def __call__(self, tokens: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        self.logits.append(logits.clone())
        if len(self.logits) == self._number:
            self._what()
        return logits


def test_a_session_that_loses_its_version_goes_on_as_if_it_had_never_had_it(
    tiny: Tiny, models: Models
) -> None:
    """Bit for bit what stable gives that prefills the same tokens at the same point."""
    session = on_trial_at_half(tiny)

    def abort() -> None:
        done = tiny.kube.moe("abort", "tiny-e3", "--wait", "--timeout", "30s")
        assert done.returncode == 2, done.stderr

    prompt = torch.tensor([list(example.heldout("scripture")[:40])])
    noted = AtToken(6, abort)
    with moe_client.attach(models.remote, tiny.addresses(), mixture="tiny") as attachment:
        made = moe_client.generate(
            models.remote, attachment, prompt, max_new_tokens=16, process=noted, session=session
        )
        assert attachment.session(session).repinned_experts == {"e3"}
    first, again = made.prefilled_at
    assert first == 40
    assert again > 45
    theirs = stable_logits(models, made.tokens, again)
    ours = noted.logits[again - 40 :]
    assert len(ours) == len(theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    before = stable_logits(models, made.tokens[:, :again], 40)
    assert not all(torch.equal(a, b) for a, b in zip(noted.logits, before, strict=False)), (
        "the session was not on the candidate: nothing was shown"
    )


@torch.inference_mode()
def stable_logits(models: Models, tokens: torch.Tensor, prefilled: int) -> list[torch.Tensor]:
    """Return the logits of each token after `prefilled` by the model in one process."""
    out = models.local(input_ids=tokens[:, :prefilled], use_cache=True, logits_to_keep=1)
    found = [out.logits[:, -1]]
    for at in range(prefilled, tokens.shape[1] - 1):
        step = tokens[:, at : at + 1]
        out = models.local(
            input_ids=step, past_key_values=out.past_key_values, use_cache=True, logits_to_keep=1
        )
        found.append(out.logits[:, -1])
    return found


def test_a_promotion_moves_no_session(tiny: Tiny, models: Models) -> None:
    """A session on stable keeps its version, bit for bit, while the candidate becomes stable."""
    on_trial_at_half(tiny)
    salt = tiny.kube.table_row("tiny", "tiny-e3")["rollout"]["salt"]
    session = next(name for name in map(str, range(100)) if bucket(salt, name) >= 5_000)

    def promote() -> None:
        done = tiny.kube.moe("promote", "tiny-e3", "--wait", "--timeout", "60s")
        assert done.returncode == 0, done.stderr

    prompt = torch.tensor([list(example.heldout("scripture")[:40])])
    noted = AtToken(4, promote)
    with moe_client.attach(models.remote, tiny.addresses(), mixture="tiny") as attachment:
        made = moe_client.generate(
            models.remote, attachment, prompt, max_new_tokens=12, process=noted, session=session
        )
    assert tiny.expert()["status"]["version"] == "v2-better"
    assert made.prefilled_at == (40,)
    theirs = stable_logits(models, made.tokens, 40)
    assert all(torch.equal(a, b) for a, b in zip(noted.logits, theirs, strict=True))
