"""Tells by the bits of answers which versions sessions are on, and whether those are their pins.

Each expert has two versions, of which the second answers twice as much, to the bit. So an answer
to a row and its chosen experts has one of few values, each of which says who gave it. A session
may see one version of each expert, that of its pin in the table that it began by, unless it was
told that it lost it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from moe_client.local import compute_exact
from moe_client.messages import Answer
from moe_client.recording import LayerRows, Recording
from moe_client.sessions import SessionState
from moe_client.site import find_sites
from moe_client.tensors import to_numpy, to_torch
from moe_core.combine import combine
from moe_core.pins import pinned
from moe_core.table import Table
from moe_router.sessions import Start, read_token

FACTORS: Final = (1.0, 2.0)  # what each version answers, of what the first one does

Place = tuple[int, bytes, bytes]
"""Layer, hidden state and chosen experts of a row."""
Versions = tuple[tuple[int, int], ...]
"""Each chosen expert's number, and the version of it that answered, 0 or 1."""


def known_answers(model: Any, recording: Recording) -> dict[Place, dict[bytes, set[Versions]]]:
    """Return the answers that the rows of a recording of this model may get, and by whom."""
    modules = {site.layer: site.experts for site in find_sites(model)}
    found: dict[Place, dict[bytes, set[Versions]]] = {}
    for layer in (layer for text in recording.texts for layer in text.layers):
        alone = _each_alone(modules[layer.layer], layer)
        for versions in itertools.product(range(len(FACTORS)), repeat=alone.shape[1]):
            factors = np.array([FACTORS[v] for v in versions], np.float32)[None, :, None]
            rows = (alone.astype(np.float32) * factors).astype(alone.dtype)
            answers = combine(rows, layer.expert_weights, alone.dtype)
            for row, answer in enumerate(answers):
                by = tuple(zip(layer.expert_index[row].tolist(), versions, strict=True))
                place = found.setdefault(_place(layer, row), {})
                place.setdefault(answer.tobytes(), set()).add(by)
    return found


def _each_alone(module: Any, layer: LayerRows) -> NDArray[Any]:
    """Return what each chosen expert answers, (T, k, H)."""
    hidden = to_torch(layer.hidden, module.down_proj)
    index = torch.from_numpy(layer.expert_index.astype(np.int64))
    one = torch.ones((len(hidden), 1), dtype=hidden.dtype)
    slots = [
        to_numpy(compute_exact(module, hidden, index[:, slot : slot + 1], one))
        for slot in range(index.shape[1])
    ]
    return np.stack(slots, axis=1)


def _place(layer: LayerRows, row: int) -> Place:
    return layer.layer, layer.hidden[row].tobytes(), layer.expert_index[row].tobytes()


@dataclass(slots=True)
class Session:
    """When it began, and the version of each expert that it was seen on."""

    start: Start
    versions: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Pins of sessions: those that were seen, those compared with tables, and those not kept."""

    sessions: int
    seen: int
    compared: int
    wrong: tuple[str, ...]

    @property
    def kept(self) -> bool:
        """Whether there was something to compare, and nothing was wrong."""
        return self.compared > 0 and not self.wrong

    def lines(self) -> list[str]:
        """Return this for people; of what was wrong the first twenty."""
        told = f"{self.seen} of {self.sessions} sessions, {self.compared} of them compared with"
        first = f"pins            {told} the table of the begin; {len(self.wrong)} not kept"
        return [first, *(f"                {one}" for one in self.wrong[:20])]


@dataclass(slots=True)
class Pins:
    """What all sessions of a load were seen on. One thread notes, then another one asks."""

    known: Mapping[Place, Mapping[bytes, set[Versions]]]
    sessions: dict[str, Session] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def differs(self, state: SessionState, part: LayerRows, answer: Answer) -> bool:
        """Note who answered; whether a row has bits that no pair of versions gives."""
        start = read_token(state.start_token, state.session, "start_token")
        session = self.sessions.setdefault(state.session, Session(start))
        for row, hidden in enumerate(answer.hidden):
            by = self.known[_place(part, row)].get(hidden.tobytes())
            if by is None:
                return True
            if len(by) == 1:  # else it is a value that several would give
                for expert, version in next(iter(by)):
                    self._note(state, session, expert, version)
        return False

    def _note(self, state: SessionState, session: Session, expert: int, version: int) -> None:
        if f"e{expert}" in state.repinned_experts:
            return  # it was told that it lost its version of that one
        if session.versions.setdefault(expert, version) != version:
            self.wrong.append(f"{state.session} saw both versions of e{expert}")

    def verdict(self, tables: Mapping[int, Table], digests: Sequence[Sequence[str]]) -> Verdict:
        """Compare with the tables that are known by epoch; `digests` by expert and version."""
        wrong, seen, compared = list(self.wrong), 0, 0
        for name, session in self.sessions.items():
            seen += len(session.versions)
            table = tables.get(session.start.epoch)
            if table is None:
                continue
            for expert, version in session.versions.items():
                row = table.expert(f"e{expert}")
                pin = None if row is None else pinned(row, name, session.start.epoch)
                compared += 1
                if pin is None or pin.sha256 != digests[expert][version]:
                    wrong.append(f"{name} saw version {version} of e{expert}; its pin is {pin}")
        return Verdict(len(self.sessions), seen, compared, tuple(wrong))
