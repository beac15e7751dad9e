"""Gate artifacts: every version that the table names is fetched and read, in threads.

A candidate is so here before it has weight. A request never waits for one: until it is there, it
is refused with the reason. An artifact that is not what the table says of it is never used.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from moe_artifacts.artifact import GateArtifact, GateLayer, read_gate
from moe_artifacts.errors import ArtifactError, Unavailable
from moe_artifacts.fetch import fetch
from moe_core.log import tell
from moe_core.rollout import Version
from moe_core.rows import GateRow, GateVariant
from moe_router.fit import misfit
from moe_router.refusal import Code, Refused
from moe_router.view import View

AGAIN_S = 2.0
LONGEST_AGAIN_S = 60.0
FETCH_S = 60.0
CHUNK_BYTES = 256 << 10
RETRY_MS = 500


class State(StrEnum):
    """How far a version is: on its way, here, or nothing that will ever be used."""

    FETCHING = "Fetching"
    LOADED = "Loaded"
    REFUSED = "Refused"


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a version of a gate is at this router, and why it is not loaded."""

    gate: str
    sha256: str
    state: State
    message: str = ""


@dataclass(frozen=True, slots=True)
class _Held:
    path: Path
    artifact: GateArtifact


class GateArtifacts:
    """The gates of the newest table. Everything but the reading happens on one event loop."""

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache
        self._view: View | None = None
        self._held: dict[str, _Held] = {}
        self._trouble: dict[str, ArtifactError | OSError] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._standings: dict[tuple[str, str], Standing] = {}
        self._ended = threading.Event()

    def want(self, view: View) -> None:
        """Begin to fetch what the table names, and forget what it does not name any more."""
        self._view = view
        wanted = {v.sha256: v for gate in view.table.gates for v in gate.named}
        for sha256 in self._tasks.keys() - wanted.keys():
            self._tasks.pop(sha256).cancel()
            self._held.pop(sha256, None)
            self._trouble.pop(sha256, None)
        for sha256 in wanted.keys() - self._tasks.keys():
            self._tasks[sha256] = asyncio.create_task(self._get(wanted[sha256]))
        self._judge(view)

    def end(self) -> None:
        """Give up what is still being fetched."""
        self._ended.set()
        for task in self._tasks.values():
            task.cancel()

    def standings(self) -> Iterator[Standing]:
        """Give how far each version is that the newest table names."""
        yield from self._standings.values()

    def layer(self, gate: GateRow, variant: GateVariant, layer: int) -> GateLayer:
        """Return the tensors of a layer. Raises Refused."""
        return self._loaded(gate, variant).artifact.layers[layer]

    async def chunks(self, view: View, sha256: str) -> AsyncIterator[tuple[bytes, int]]:
        """Give the bytes of an artifact that the table names, each with the size of all of it.

        Raises Refused.
        """
        held = self._loaded(*_named(view, sha256))
        try:
            file, size = await asyncio.to_thread(_open, held.path)
            with file:
                while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
                    yield data, size
        except OSError as error:
            text = f"the artifact of gate version {sha256} cannot be read: {error.strerror}"
            raise Refused(Code.UNAVAILABLE, text, RETRY_MS) from None

    def _loaded(self, gate: GateRow, variant: GateVariant) -> _Held:
        held = self._held.get(variant.sha256)
        standing = self._standings.get((gate.name, variant.sha256))
        if held is not None and standing is not None and standing.state is State.LOADED:
            return held
        why = standing.message if standing is not None else ""
        text = f"gate {gate.name!r} version {variant.version!r} is not here yet"
        why = why or "it is still being fetched"
        raise Refused(Code.UNAVAILABLE, f"{text}: {why}", RETRY_MS)

    def _judge(self, view: View) -> None:
        self._standings = {
            (row.name, variant.sha256): self._standing(view, row, variant)
            for row in view.table.gates
            for variant in row.named
        }

    def _standing(self, view: View, row: GateRow, variant: GateVariant) -> Standing:
        state, message = State.FETCHING, ""
        held, trouble = self._held.get(variant.sha256), self._trouble.get(variant.sha256)
        if held is not None:
            message = misfit(view.table, row, variant, held.artifact.metadata)
            state = State.REFUSED if message else State.LOADED
        elif trouble is not None:
            message, state = str(trouble), State.FETCHING if _passing(trouble) else State.REFUSED
        return Standing(row.name, variant.sha256, state, message)

    async def _get(self, version: Version) -> None:
        while True:
            try:
                self._held[version.sha256] = await asyncio.to_thread(self._load, version)
            except (ArtifactError, OSError) as error:
                self._trouble[version.sha256] = error
                tell("gate_not_fetched", uri=version.uri, reason=error)
                wait_s = AGAIN_S if isinstance(error, Unavailable) else LONGEST_AGAIN_S
            else:
                wait_s = 0.0
                tell("gate", uri=version.uri, version=version.version)
            if self._view is not None:
                self._judge(self._view)
            if not wait_s:
                return
            await asyncio.sleep(wait_s)

    def _load(self, version: Version) -> _Held:
        """Runs in a thread."""
        path = fetch(
            version.uri, version.sha256, self._cache, timeout_s=FETCH_S, cancel=self._ended
        )
        return _Held(path, read_gate(path))


def _open(path: Path) -> tuple[BinaryIO, int]:
    file = path.open("rb")
    return file, os.fstat(file.fileno()).st_size


def _passing(trouble: ArtifactError | OSError) -> bool:
    return isinstance(trouble, (Unavailable, OSError))


def _named(view: View, sha256: str) -> tuple[GateRow, GateVariant]:
    """Return the version of this digest. Raises Refused, which says what the table names."""
    gates = view.table.gates
    for row in gates:
        for variant in row.named:
            if variant.sha256 == sha256:
                return row, variant
    named = "; ".join(
        f"{row.name!r}: {', '.join(f'{v.version!r} {v.sha256}' for v in row.named)}"
        for row in gates
    )
    text = f"sha256 is {sha256!r}; the gate versions that the table names are {named or 'none yet'}"
    raise Refused(Code.NOT_FOUND, text)
