"""Finds what experts compute on: a GPU that torch sees, or the processor.

It decides nothing about exactness, which is proven on the device that is found.
"""

from __future__ import annotations

from typing import Final

import torch

# Pinned pages are fetched by a GPU itself, at thrice the speed; below this size asking for them
# costs more than it saves (H100).
_PINNED_FROM_BYTES: Final = 256 << 10


class NoDevice(RuntimeError):
    """There is not what was asked for."""


def find(asked: str) -> torch.device:
    """Return the device: `auto` is a GPU where there is one. Raises NoDevice.

    Products of matrices are then made of whole terms: TF32, and sums in 16 bits, would save time
    and cost digits that the model's maker counted on.
    """
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"CUDA {built} sees no device" if built else "it was built without CUDA"
        raise NoDevice(f"--device is cuda, but torch {torch.__version__} has no GPU: {why}")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    return torch.device("cuda", torch.cuda.current_device())


def pinned(device: torch.device, size: int) -> bool:
    """Return whether so many bytes are to be in pinned pages on their way to or from a device."""
    return device.type != "cpu" and size >= _PINNED_FROM_BYTES


def fetched(answers: torch.Tensor) -> torch.Tensor:
    """Return answers in main memory."""
    if not pinned(answers.device, answers.nbytes):
        return answers.cpu()
    room = torch.empty(answers.shape, dtype=answers.dtype, pin_memory=True)
    room.copy_(answers, non_blocking=True)
    torch.cuda.current_stream(answers.device).synchronize()
    return room


def told(device: torch.device) -> str:
    """Return the device as a log says it."""
    if device.type == "cpu":
        return "cpu"
    free, total = torch.cuda.mem_get_info(device)
    return f"{device} ({torch.cuda.get_device_name(device)}, {free} of {total} bytes free)"
