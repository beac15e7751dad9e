"""Routers in memory behind the plugin's seam: what they counted is set by the test."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kubectl_moe.gate_loads import Load, Of, Reading
from moe_core.worker_load import WorkerLoad


class FakeRouters:
    """Each reading is what `counted` says then; a pod without is silent."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.counted: dict[str, dict[Of, Load]] = {}
        self.heard: dict[str, dict[str, WorkerLoad]] = {}  # by router, what workers counted
        self.incarnations: dict[str, str] = {}
        self.asked: list[tuple[str, ...]] = []
        self.closed = False
        self.before_reading: Callable[[], None] = lambda: None

    def read(
        self, pods: Sequence[str], digests: Sequence[str], *, grouped: bool = False
    ) -> tuple[tuple[Reading, ...], tuple[str, ...]]:
        self.before_reading()
        self.asked.append(tuple(digests))
        readings = [
            Reading(
                pod,
                self.incarnations.get(pod, "one"),
                dict(self.counted[pod]),
                dict(self.heard.get(pod, {})),
                self._now(),
            )
            for pod in pods
            if pod in self.counted
        ]
        silent = [f"router {pod}: it is away" for pod in pods if pod not in self.counted]
        return tuple(readings), tuple(silent)

    def close(self) -> None:
        self.closed = True
