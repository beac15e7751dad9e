"""Stands in for a link: keeps the answers that it is given."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from moeops.v1.link_pb2 import LinkFrame, Result


@dataclass(slots=True)
class FakeAsker:
    """Results and their rows by attempt."""

    closed: bool = False
    results: dict[int, Result] = field(default_factory=dict)
    rows: dict[int, torch.Tensor | None] = field(default_factory=dict)

    def answer(self, frame: LinkFrame, body: torch.Tensor | None) -> None:
        assert frame.result.attempt not in self.results, "answered twice"
        self.results[frame.result.attempt] = frame.result
        self.rows[frame.result.attempt] = body
