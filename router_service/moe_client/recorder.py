"""Makes a recording: runs a model here and notes what each gate asks of the experts.

The expected answers are those of `moeops_local`, so that whoever repeats the requests can compare
bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from moe_client.alignment import align
from moe_client.local import compute_exact
from moe_client.recording import LayerRows, Recording, Text
from moe_client.remote import REMOTE, place, remove
from moe_client.site import Site, find_sites
from moe_client.tensors import to_numpy


@torch.no_grad()
def record(model: Any, sequences: Iterable[torch.Tensor]) -> Recording:
    """Return what the model's gates send for each sequence of tokens (T,).

    The model computes as before afterwards. Raises InvalidRequest for a model without experts.
    """
    sites = find_sites(model)
    align(model)
    before = model.get_experts_implementation()
    recorder = _Recorder(sites)
    for site in sites:
        place(site.experts, recorder, site.layer)
    model.set_experts_implementation(REMOTE)
    try:
        return Recording(tuple(recorder.run(model, tokens) for tokens in sequences))
    finally:
        model.set_experts_implementation(before)
        for site in sites:
            remove(site.experts)


class _Recorder:
    """Computes with the local kernel, and keeps what goes in and out."""

    def __init__(self, sites: Iterable[Site]) -> None:
        self._modules = {site.layer: site.experts for site in sites}
        self._rows: list[LayerRows] = []

    def run(self, model: Any, tokens: torch.Tensor) -> Text:
        self._rows = []
        model(input_ids=tokens[None], use_cache=False)
        return Text(tuple(self._rows))

    def compute(
        self, layer: int, hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        answer = compute_exact(self._modules[layer], hidden, index, weights)
        arrays = (hidden, index.to(torch.int32), weights, answer)
        self._rows.append(LayerRows(layer, *(to_numpy(array).copy() for array in arrays)))
        return answer
