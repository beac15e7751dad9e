"""Runs the sequences of a golden set through the routers, once with each of two versions.

Sequences of one length are computed together, and a batch is composed the same in both runs, so
that the versions are all that differs. An answer that is degraded, that comes from another version
or from a session that was moved, is no evidence: its batch is run again, and in the end the
evaluation fails rather than judges on it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moe_artifacts.golden import Golden
from moe_artifacts.golden import Sequence as GoldenSequence
from moe_client.attachment import Attachment
from moe_client.comparison import Choices, Flips, Pair, count_flips, to_ids
from moe_client.errors import (
    DeadlineExceeded,
    InvalidRequest,
    MalformedAnswer,
    MoeError,
    Overloaded,
    Repinned,
    Unavailable,
)
from moe_client.losses import loss_of
from moe_client.sessions import SessionState

BATCH_TOKENS = 2048
ATTEMPTS = 6
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 8.0

OF_GATE = "gate/"  # begins what is no id of an expert

Index = NDArray[np.int32]
_PASSING = (DeadlineExceeded, MalformedAnswer, Overloaded, Repinned, Unavailable)


@dataclass(frozen=True, slots=True)
class Versions:
    """What is compared: two versions of one expert, or of one gate, by digest.

    `beside` has the versions with which stable and candidate of a gate are run, by expert, and of
    other gates by `gate/NAME`.
    """

    name: str
    stable: str
    candidate: str
    gate: bool = False
    beside: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return "gate" if self.gate else "expert"

    def gates(self, sha256: str) -> dict[str, str]:
        """Return the gates that calls are forced to, by name, where they use this version."""
        others = {name: d for name, d in self._beside(sha256).items() if name.startswith(OF_GATE)}
        named = {name.removeprefix(OF_GATE): digest for name, digest in others.items()}
        return {self.name: sha256, **named} if self.gate else {}

    def experts(self, sha256: str) -> dict[str, str]:
        """Return the same of experts, by id."""
        others = self._beside(sha256).items()
        named = {name: digest for name, digest in others if not name.startswith(OF_GATE)}
        return named if self.gate else {self.name: sha256}

    def _beside(self, sha256: str) -> dict[str, str]:
        side = int(sha256 == self.candidate)
        return {name: digests[side] for name, digests in self.beside.items()}

    def forced(self, attachment: Attachment, sha256: str) -> AbstractContextManager[None]:
        """Have calls inside use this version."""
        return attachment.forced(self.experts(sha256), gates=self.gates(sha256))


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences of one length, and their places in the set."""

    places: tuple[int, ...]
    tokens: torch.Tensor  # (B, L)


@dataclass(frozen=True, slots=True)
class Run:
    """A batch as one version computed it: each sequence's mean loss, bits per token; choices."""

    losses: tuple[float, ...]
    choices: Choices


class Spoilt(Exception):
    """An answer is no evidence; the message says why."""


def batches(golden: Golden, most_tokens: int = BATCH_TOKENS) -> list[Batch]:
    """Return the set's sequences by length, longest first, about `most_tokens` in a batch."""
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    for place, sequence in enumerate(golden.sequences):
        by_length[len(sequence.tokens)].append(place)
    return [
        Batch(tuple(part), _stack([golden.sequences[place] for place in part]))
        for length, places in sorted(by_length.items(), reverse=True)
        for part in _cut(places, max(most_tokens // length, 1))
    ]


def compare(
    model: Any,
    attachment: Attachment,
    golden: Golden,
    versions: Versions,
    *,
    pause: Callable[[float], None],
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Pair], Flips]:
    """Return both losses of each sequence, in the set's order, and the choices that flipped.

    `tell` is told how many batches of how many are done. Raises MoeError where the routers refuse,
    Unavailable where after several tries there was still no evidence.
    """
    pairs: dict[int, Pair] = {}
    flips = Flips()
    layers = counted(attachment, versions)
    parts = batches(golden)
    for number, batch in enumerate(parts):
        stable, candidate = (
            _insist(model, attachment, batch, versions, sha256, pause)
            for sha256 in (versions.stable, versions.candidate)
        )
        flips = flips.plus(count_flips(stable.choices, candidate.choices, layers))
        losses = zip(batch.places, stable.losses, candidate.losses, strict=True)
        pairs |= {place: Pair(golden.sequences[place].slice, a, b) for place, a, b in losses}
        tell(number + 1, len(parts))
    return [pairs[place] for place in range(len(golden.sequences))], flips


def counted(attachment: Attachment, versions: Versions) -> tuple[int, ...]:
    """Return the layers in which choices may flip: all of gates, those above an expert."""
    if not versions.gate:
        return downstream(attachment, versions.name)
    known = {gate.name: gate.layers for gate in attachment.mixture.gates}
    for name in versions.gates(versions.stable):
        if name not in known:
            raise InvalidRequest(f"gate is {name!r}; the mixture has {', '.join(known)}")
    return tuple(sorted(n for name in versions.gates(versions.stable) for n in known[name]))


def downstream(attachment: Attachment, expert: str) -> tuple[int, ...]:
    """Return the MoE layers above the first one in which a gate knows the expert: below, both
    runs are the same. A stand-in that no gate knows may act in every layer."""
    gates = attachment.mixture.gates
    every = sorted({layer for gate in gates for layer in gate.layers})
    known = [layer for gate in gates if expert in gate.experts for layer in gate.layers]
    first = min(known, default=min(every, default=0))
    return tuple(layer for layer in every if layer > first)


def spoilt(state: SessionState) -> str | None:
    """Return why a sequence's answer is no evidence; None where it is."""
    if state.degraded:
        return f"{100 * state.degraded_share:.1f} % of a sequence was degraded"
    if state.repinned:
        return f"a sequence lost its version of {', '.join(sorted(state.repinned))}"
    others = sorted(expert for rung, expert in state.rungs if rung != "Replica")
    return f"another version or expert answered for {others[0]}" if others else None


def _insist(
    model: Any,
    attachment: Attachment,
    batch: Batch,
    versions: Versions,
    sha256: str,
    pause: Callable[[float], None],
) -> Run:
    """Run a batch until it is evidence; Unavailable after `ATTEMPTS`."""
    for attempt in range(ATTEMPTS):
        if attempt:
            pause(min(FIRST_PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S))
        try:
            return _run(model, attachment, batch, versions, sha256)
        except Spoilt as reason:
            last = str(reason)
        except _PASSING as error:
            last = str(error)
    raise Unavailable(f"{versions.name} {sha256[:10]} gave no evidence in {ATTEMPTS} tries: {last}")


@torch.no_grad()
def _run(model: Any, attachment: Attachment, batch: Batch, versions: Versions, sha256: str) -> Run:
    choices: dict[int, Index] = {}

    def note(layer: int, index: torch.Tensor) -> None:
        choices[layer] = index.to(torch.int32).cpu().numpy()

    device = model.get_input_embeddings().weight.device
    tokens = batch.tokens.to(device)
    with versions.forced(attachment, sha256), attachment.choices(note):
        logits = model(input_ids=tokens, use_cache=False).logits  # (B, L, V)
    for state in attachment.last:
        reason = spoilt(state)
        attachment.forget(state.session)
        if reason:
            raise Spoilt(reason)
    losses = [loss_of(row[:-1], ids[1:]) for row, ids in zip(logits, tokens, strict=True)]
    means = tuple(loss.bits / loss.tokens for loss in losses)
    if wrong := [mean for mean in means if not math.isfinite(mean)]:
        raise MoeError(f"the loss of a sequence is {wrong[0]}; it must be finite")
    return Run(means, _by_id(attachment, versions, sha256, choices) if versions.gate else choices)


def _by_id(
    attachment: Attachment, versions: Versions, sha256: str, choices: Mapping[int, Index]
) -> Choices:
    """Return what versions of gates chose in their layers, by ids: versions list their own."""
    found: dict[int, Index] = {}
    for name, digest in versions.gates(sha256).items():
        gate = attachment.mixture.gate(name)
        version = gate.find(digest) if gate is not None else None
        if gate is None or version is None:
            raise Spoilt(f"gate {name} {digest[:10]} is not named any more")
        found |= {layer: to_ids(choices[layer], version.experts) for layer in gate.layers}
    return found


def _stack(sequences: Sequence[GoldenSequence]) -> torch.Tensor:
    return torch.from_numpy(np.stack([s.tokens for s in sequences]).astype(np.int64))


def _cut(places: Sequence[int], most: int) -> Iterator[Sequence[int]]:
    return (places[start : start + most] for start in range(0, len(places), most))
