"""Generates text with a KV cache that is made anew when it is worth nothing any more.

A small loop of its own, because transformers' cannot go back: where a session lost its version of
an expert or a gate, or the table that it began with is gone, all tokens so far are prefilled again
and the text goes on. Which version answers, and whether to go on at all, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from moe_client.attachment import Attachment
from moe_client.calls import fresh, named
from moe_client.errors import InvalidRequest, Mismatch, Repinned, Unavailable
from moe_client.repin import OnRepin

MOST_PREFILLS = 8
"""For one token: each is the answer to another change of the table."""

Process = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(tokens so far (B, T), logits of the next (B, V)) to the logits that count."""


@dataclass(frozen=True, slots=True)
class Generated:
    """Prompt and new tokens, and at how many tokens all of them were prefilled, the first
    prefill included."""

    tokens: torch.Tensor  # (B, T + new)
    prefilled_at: tuple[int, ...]


@torch.no_grad()
def generate(
    model: Any,
    attachment: Attachment,
    input_ids: torch.Tensor,
    *,
    max_new_tokens: int = 20,
    eos_token_id: int | None = None,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    session: str | Sequence[str] | None = None,
    process: Process | None = None,
) -> Generated:
    """Continue prompts (B, T) of one length, without padding, until each has ended.

    The likeliest token is taken, or one by chance at a `temperature` above 0. `process` may change
    or note the logits, as a logits processor of transformers. A row that has met `eos_token_id`
    is filled up with it. Raises MoeError; Repinned only if attached with `OnRepin.ABORT`.
    """
    if input_ids.ndim != 2 or not input_ids.numel():
        shape = list(input_ids.shape)
        raise InvalidRequest(f"input_ids has shape {shape}; it must be (batch, 1 token or more)")
    batch = len(input_ids)
    names = fresh(batch) if session is None else named(session, batch)
    reader, tokens = _Reader(model, attachment, names), input_ids
    ended = torch.zeros(batch, dtype=torch.bool, device=input_ids.device)
    for _ in range(max_new_tokens):
        logits = reader.read(tokens)
        logits = logits if process is None else process(tokens, logits)
        chosen = _choose(logits, temperature, generator).to(input_ids.device)
        if eos_token_id is not None:
            chosen = torch.where(ended, eos_token_id, chosen)
            ended |= chosen == eos_token_id
        tokens = torch.cat([tokens, chosen[:, None]], dim=1)
        if bool(ended.all()):
            break
    return Generated(tokens, tuple(reader.prefilled_at))


def _choose(
    logits: torch.Tensor, temperature: float, generator: torch.Generator | None
) -> torch.Tensor:
    if temperature <= 0:
        return logits.argmax(dim=-1)
    chances = torch.softmax(logits.float() / temperature, dim=-1)
    return torch.multinomial(chances, 1, generator=generator)[:, 0]


class _Reader:
    """A model with its cache and its sessions."""

    def __init__(self, model: Any, attachment: Attachment, names: tuple[str, ...]) -> None:
        self.prefilled_at: list[int] = []
        self._model, self._attachment, self._names = model, attachment, names
        self._cache: Any = None
        self._kept = 0 if attachment.reporting else 1  # losses need the logits of all tokens

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, V) after `tokens` (B, T), all but the last of which are cached."""
        for _ in range(MOST_PREFILLS):
            try:
                return self._step(tokens)
            except Repinned:
                if self._attachment.on_repin is OnRepin.ABORT:
                    raise
            except Mismatch:
                if not self._began:
                    raise
                for name in self._names:
                    self._attachment.forget(name)
            self._cache = None
        raise Unavailable(f"the table changed under {MOST_PREFILLS} prefills in a row")

    @property
    def _began(self) -> bool:
        return any(self._attachment.session(name).rows for name in self._names)

    def _step(self, tokens: torch.Tensor) -> torch.Tensor:
        if self._cache is None:
            self.prefilled_at.append(tokens.shape[1])
        with self._attachment.sessions(self._names):
            out = self._model(
                input_ids=tokens if self._cache is None else tokens[:, -1:],
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=self._kept,
            )
        self._cache = out.past_key_values
        logits: torch.Tensor = out.logits[:, -1]
        return logits
