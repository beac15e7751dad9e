"""The example model's gate under traffic that shifts: what it chooses, and what is made of it.

What is chosen is computed live, of held-out text. A session is one piece of text, read from an
empty cache; the baseline is recorded on every second piece, and traffic is of the others.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from examples.tiny import outage
from examples.tiny.domains import DOMAINS, EXPERTS
from examples.tiny.model import CONTEXT, heldout, load
from moe_core.drift import GROUPS, spread
from moe_operator.drift import Detector, History, Tallies, Tally, Watched, remember
from moe_operator.drift_spec import DriftSpec

Pieces = npt.NDArray[np.int64]  # (P, L, E)
Mix = Mapping[str, float]

GATE = "gate"
SHA = "b" * 64
EVEN: Mix = dict.fromkeys(DOMAINS, 1 / len(DOMAINS))
# The sessions of a baseline, and of what is heard of at once.
RECORDED, HEARD = 2_000, 8


def shifted(domain: str, share: float) -> Mix:
    """Return a mix of which so much is of one kind, and the rest as before."""
    mix = {name: (1 - share) * weight for name, weight in EVEN.items()}
    return {**mix, domain: mix[domain] + share}


@dataclass(frozen=True, slots=True)
class Chosen:
    """Pairs of each piece by layer and expert, by kind of text; a piece has CONTEXT rows."""

    pieces: Mapping[str, Pieces]

    @classmethod
    def live(cls) -> Chosen:
        """Read all held-out text with one thread; about ten seconds."""
        torch.set_num_threads(1)
        model = load(torch.float32)
        model.set_experts_implementation("eager")
        found = {}
        for domain in DOMAINS:
            text = torch.tensor(list(heldout(domain)))
            pieces = text[: len(text) // CONTEXT * CONTEXT].view(-1, CONTEXT)
            layers: list[Pieces] = []
            hooks = [_count(gate, layers, len(pieces)) for gate in outage.gates(model)]
            with torch.inference_mode():
                model(input_ids=pieces, use_cache=False)
            for hook in hooks:
                hook.remove()
            found[domain] = np.stack(layers, axis=1)
        return cls(found)

    def every_second(self, first: int) -> Chosen:
        return Chosen({name: pieces[first::2] for name, pieces in self.pieces.items()})

    def draw(self, rng: np.random.Generator, mix: Mix, sessions: int) -> Tallies:
        """Return what so many sessions chose, in groups."""
        names = list(mix)
        layers = next(iter(self.pieces.values())).shape[1]
        groups = np.zeros((layers, GROUPS, EXPERTS), np.int64)
        for name in rng.choice(names, sessions, p=[mix[name] for name in names]):
            pieces = self.pieces[name]
            groups[:, rng.integers(GROUPS)] += pieces[rng.integers(len(pieces))]
        rows = sessions * CONTEXT
        return {
            (layer, ""): Tally(rows, array("q", groups[layer].ravel().tolist()))
            for layer in range(layers)
        }


def _count(gate: nn.Module, layers: list[Pieces], pieces: int) -> torch.utils.hooks.RemovableHandle:
    def count(_gate: nn.Module, _args: object, out: outage.GateOutput) -> None:
        chosen = out[2].reshape(pieces, -1).numpy()
        places = chosen + np.arange(pieces)[:, None] * EXPERTS
        bins = np.bincount(places.ravel(), minlength=pieces * EXPERTS)
        layers.append(bins.reshape(pieces, EXPERTS).astype(np.int64))

    return gate.register_forward_hook(count)


@dataclass(frozen=True, slots=True)
class Stage:
    """A gate with a baseline, and the text that is served."""

    served: Chosen
    watched: Watched

    @classmethod
    def of(cls, chosen: Chosen, spec: DriftSpec, seed: int = 0) -> Stage:
        """Record a baseline of all kinds of text alike."""
        recorded = chosen.every_second(0).draw(np.random.default_rng(seed), EVEN, RECORDED)
        found = {place: spread(tally.pairs, EXPERTS) for place, tally in recorded.items()}
        baseline = {place: seen for place, seen in found.items() if seen is not None}
        spec = DriftSpec({SHA: baseline}, spec.window_rows, spec.max_psi_percent)
        experts = tuple(f"e{number}" for number in range(EXPERTS))
        return cls(chosen.every_second(1), Watched(GATE, "v1", SHA, experts, spec))

    def histories(self, mixes: Iterator[Mix], seed: int) -> Iterator[History]:
        """Give what is known each time that some sessions more have come."""
        rng, history = np.random.default_rng(seed), History()
        for mix in mixes:
            history = remember(history, self.served.draw(rng, mix, HEARD), self.watched)
            yield history

    def settled(self) -> int:
        """Return after how many samples a window is full, and an old one out of it."""
        return 2 * self.watched.spec.window_rows // (HEARD * CONTEXT)

    def psi(self, mix: Mix, seed: int, samples: int) -> float:
        """Return the index of the layer that is farthest, in a window that is full of a mix."""
        history = History()
        for seen in self.histories(iter([mix] * samples), seed):
            history = seen
        return max(distance.psi for distance in history.distances.values())

    def rows_to_alarm(self, mix: Mix, seed: int, most: int) -> int | None:
        """Return how many rows of a layer come from a shift on until it is told; None of none."""
        before = self.settled()
        mixes = (EVEN if sample < before else mix for sample in range(before + most))
        for sample, history in enumerate(self.histories(mixes, seed)):
            if sample >= before and Detector.DRIFTING in history.alarms:
                return (sample - before + 1) * HEARD * CONTEXT
        return None

    def alarms(self, mix: Mix, seed: int, windows: int) -> int:
        """Return how often an alarm is raised in so many windows of one mix."""
        samples, before, count = windows * self.settled() // 2, False, 0
        for history in self.histories(iter([mix] * samples), seed):
            now = Detector.DRIFTING in history.alarms
            count, before = count + (now and not before), now
        return count


def median(values: Sequence[int | None]) -> float:
    """Return the median; what was never told counts as the most."""
    return float(np.median([np.inf if value is None else value for value in values]))
