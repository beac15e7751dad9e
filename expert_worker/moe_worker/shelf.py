"""The experts in memory, by digest and layer. Readers never wait for the one who loads."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from moe_core.kernel import ExpertKernel

Slot = tuple[str, int]
"""A digest and a layer."""


class Shelf:
    """Kernels ready to compute. Changed by one thread only; a change swaps the whole snapshot.

    Who has found a kernel may go on using it: its memory is freed when the last one is done.
    """

    def __init__(self) -> None:
        self._kernels: Mapping[Slot, ExpertKernel] = {}

    def find(self, sha256: str, layer: int) -> ExpertKernel | None:
        return self._kernels.get((sha256, layer))

    def has(self, sha256: str, layers: Iterable[int]) -> bool:
        return all((sha256, layer) in self._kernels for layer in layers)

    def slots(self) -> Collection[Slot]:
        return self._kernels.keys()

    def put(self, sha256: str, kernels: Mapping[int, ExpertKernel]) -> None:
        added = {(sha256, layer): kernel for layer, kernel in kernels.items()}
        self._kernels = {**self._kernels, **added}

    def drop(self, slots: Collection[Slot]) -> None:
        self._kernels = {slot: k for slot, k in self._kernels.items() if slot not in slots}
