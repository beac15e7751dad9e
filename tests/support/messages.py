"""Messages from a router to a worker, made by hand."""

from __future__ import annotations

import numpy as np

from moe_router.ladder import Ask, Lost
from moe_router.message import Message, Part


def message_to(
    worker: str, *sha256: str, sent_s: float = 0.0, timeout_s: float = 30.0, value: float = 1.0
) -> Message:
    """Return a message with two rows of four float32 for each artifact, in layer 0."""
    parts = tuple(
        Part(Lost("e", None), Ask(None, "e", digest, (worker,)), np.arange(2)) for digest in sha256
    )
    rows = np.full((2 * len(parts), 4), value, np.float32)
    pairs = np.tile(np.arange(2), len(parts))
    return Message(worker, 0, parts, pairs, rows, sent_s, timeout_s)
