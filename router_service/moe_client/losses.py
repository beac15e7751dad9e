"""Next-token loss of what a model reads: of each token that follows one whose logits are known.

Within a call labels are the call's own tokens; from call to call the last logits of a session are
kept until its next token is known. Sends nothing and knows no router.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from moe_client.calls import Call

KEPT_SESSIONS = 256
"""Whose last logits are kept: one row of the vocabulary each."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Loss in bits, summed over `tokens`."""

    tokens: int
    bits: float


@torch.no_grad()
def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> Loss:
    """Return -log2 p(labels), summed; `logits` (n, V) are those that predict `labels` (n,)."""
    each = functional.cross_entropy(logits.float(), labels.to(logits.device), reduction="none")
    return Loss(len(labels), float(each.double().sum()) / math.log(2))


class LossWatch:
    """Follows the calls of a model. Safe from any thread."""

    def __init__(self, limit: int = KEPT_SESSIONS) -> None:
        self._limit = limit
        self._last: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def losses(self, call: Call, ids: Any, logits: Any) -> Iterator[tuple[str, Loss]]:
        """Give what this call tells of its sessions. `ids` (B, L), `logits` (B, K, V), K ≤ L.

        Logits may be those of the last K tokens only, as generate asks for.
        """
        if not isinstance(ids, torch.Tensor) or not isinstance(logits, torch.Tensor):
            return
        length, kept = ids.shape[1], logits.shape[1]
        if logits.ndim != 3 or not 1 <= kept <= length:
            return
        real = torch.ones(ids.shape, dtype=torch.bool)
        if call.kept is not None:
            real = call.kept.view(ids.shape)
        for row, session in enumerate(call.sessions):
            mine = real[row]
            tokens = ids[row].cpu()[mine]
            known = logits[row][mine[-kept:].to(logits.device)].detach()
            if not len(known):
                continue
            before = self._swap(session, known[-1].clone())
            if before is not None and call.cached and len(known) == len(tokens):
                known, tokens = torch.cat([before[None], known]), torch.cat([tokens[:1], tokens])
            if len(known) > 1:
                yield session, loss_of(known[:-1], tokens[len(tokens) - len(known) + 1 :])

    def _swap(self, session: str, last: torch.Tensor) -> torch.Tensor | None:
        with self._lock:
            before = self._last.pop(session, None)
            self._last[session] = last
            if len(self._last) > self._limit:
                self._last.popitem(last=False)
            return before
