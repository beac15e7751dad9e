"""The metrics port of a worker: an event loop in a thread of its own, which has nothing else to do.

It listens from the start, and answers from `run` on.
"""

from __future__ import annotations

import asyncio

from moe_core.metrics import Collector
from moe_core.metrics_port import MetricsPort


class Scrapes:
    """Raises CannotListen, an OSError."""

    def __init__(self, collector: Collector, host: str, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        metrics = MetricsPort(collector)
        listening = metrics.listen(host, port, f"--metrics {host}:{port}")
        bound = self._loop.run_until_complete(listening)
        self.address = f"{host}:{bound}"

    def run(self) -> None:
        """Answer for as long as the process lives."""
        self._loop.run_forever()
