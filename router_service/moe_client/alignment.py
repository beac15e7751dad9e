"""Puts a model's weights at aligned addresses, so that its own bits do not depend on its loader.

Matrix libraries choose their inner loops by address too: with one row, a weight mapped from a
file at an odd offset gives other last bits than the same weight in memory of torch's own. Values
are never changed. Weights on other devices than the processor are aligned already.
"""

from __future__ import annotations

import torch
from torch import nn

ALIGNMENT = 64


@torch.no_grad()
def align(model: nn.Module) -> None:
    """Move parameters and buffers that are not aligned; ties between them stay."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNMENT:
            tensor.data = tensor.data.clone(memory_format=torch.preserve_format)
