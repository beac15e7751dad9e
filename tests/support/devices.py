"""The devices of this machine, so that what holds on processors is tried on a GPU that is there."""

from __future__ import annotations

from typing import Final

import torch

from moe_worker.device import find

DEVICES: Final = tuple(
    torch.device(kind) for kind in ("cpu", "cuda") if kind == "cpu" or torch.cuda.is_available()
)
USUAL: Final = find("auto")
"""What a worker takes that is told nothing."""
