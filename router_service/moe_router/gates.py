"""Gate artifacts that `Route` needs: fetched and read in threads when a table names them.

A request never waits for one: until it is there, it is refused with the reason.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from moe_artifacts.artifact import read_gate
from moe_artifacts.errors import ArtifactError, Unavailable
from moe_artifacts.fetch import fetch
from moe_core.table import GateRow, Version
from moe_router.events import tell
from moe_router.refusal import Code, Refused
from moe_router.view import View

Array = npt.NDArray[Any]

AGAIN_S = 2.0
LONGEST_AGAIN_S = 60.0
FETCH_S = 60.0


class GateArtifacts:
    """The gates of the newest table, by digest."""

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache
        self._layers: dict[str, Mapping[int, Array]] = {}
        self._trouble: dict[str, str] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ended = threading.Event()

    def want(self, view: View) -> None:
        """Begin to fetch what the table names, and forget what it does not name any more."""
        wanted = {gate.stable.sha256: gate.stable for gate in view.table.gates}
        for sha256 in self._tasks.keys() - wanted.keys():
            self._tasks.pop(sha256).cancel()
            self._layers.pop(sha256, None)
            self._trouble.pop(sha256, None)
        for sha256 in wanted.keys() - self._tasks.keys():
            self._tasks[sha256] = asyncio.create_task(self._get(wanted[sha256]))

    def end(self) -> None:
        """Give up what is still being fetched."""
        self._ended.set()
        for task in self._tasks.values():
            task.cancel()

    def weight(self, gate: GateRow, layer: int) -> Array:
        """Return the weight (E, H) of a layer. Raises Refused."""
        layers = self._layers.get(gate.stable.sha256)
        if layers is None:
            trouble = self._trouble.get(gate.stable.sha256, "it is still being fetched")
            text = f"gate {gate.name!r} version {gate.stable.version!r} is not here yet: {trouble}"
            raise Refused(Code.UNAVAILABLE, text, retry_after_ms=500)
        if layer not in layers:
            text = f"the artifact of gate {gate.name!r} has no layer {layer}, which the table names"
            raise Refused(Code.FAILED_PRECONDITION, text)
        return layers[layer]

    async def _get(self, version: Version) -> None:
        wait_s = AGAIN_S
        while True:
            try:
                self._layers[version.sha256] = await asyncio.to_thread(self._load, version)
            except (ArtifactError, OSError) as error:
                self._trouble[version.sha256] = str(error)
                tell("gate_not_fetched", uri=version.uri, reason=error)
                wait_s = AGAIN_S if isinstance(error, Unavailable) else LONGEST_AGAIN_S
            else:
                tell("gate", uri=version.uri, version=version.version)
                return
            await asyncio.sleep(wait_s)

    def _load(self, version: Version) -> Mapping[int, Array]:
        """Runs in a thread."""
        path = fetch(
            version.uri, version.sha256, self._cache, timeout_s=FETCH_S, cancel=self._ended
        )
        return read_gate(path).layers
