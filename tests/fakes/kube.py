"""An API server that a test scripts: lists, then watches, each with events or a trouble."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping
from typing import Any

from moe_router.kube import TooOld, Unreachable

Step = dict[str, Any] | list[Any] | Exception


def listed(version: int, *items: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": str(version)}, "items": list(items)}


def event(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "object": body}


class ScriptedApi:
    """Takes one step for each call: a dict answers a list, a list of events a watch.

    A watch whose events are over waits for the test to add steps. `calls` notes what was asked.
    """

    def __init__(self, *steps: Step) -> None:
        self.calls: list[Mapping[str, str]] = []
        self._steps: queue.Queue[Step] = queue.Queue()
        self.add(*steps)

    def add(self, *steps: Step) -> None:
        for step in steps:
            self._steps.put(step)

    def read(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        step = self._next(query)
        assert isinstance(step, dict), f"a list was asked for where the script has {step}"
        return step

    def events(self, path: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        step = self._next(query)
        assert isinstance(step, list), f"a watch was asked for where the script has {step}"
        for item in step:
            if isinstance(item, Exception):
                raise item
            yield item

    def _next(self, query: Mapping[str, str]) -> Step:
        self.calls.append(query)
        try:
            step = self._steps.get(timeout=20)
        except queue.Empty:
            raise Unreachable("the script is over") from None
        if isinstance(step, Exception):
            raise step
        return step


GONE = {"code": 410, "message": "too old resource version"}
__all__ = ["GONE", "ScriptedApi", "TooOld", "Unreachable", "event", "listed"]
