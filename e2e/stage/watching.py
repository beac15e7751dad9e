"""Watches all that scenarios do to the cluster: what Prometheus stores of it, and what it alerts.

The whole suite is the load, so that no scenario has to break things only to be looked at.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from e2e.stage.scraping import prometheus
from tests.dashboards.files import ALERTS, Asked, asked
from tests.prometheus.server import PrometheusServer

_STEP_S: Final = 5.0
"""As often as Prometheus evaluates: an alert of one evaluation is not stepped over."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A Prometheus that has scraped all programs of ours since it began."""

    server: PrometheusServer
    began: float
    """Of the monotonic clock."""

    def answered(self, asked: Asked) -> bool:
        """True when a query of a panel had data at any moment; zeros are, where they were said."""
        values = {"expert": "e3"} if asked.board == "expert" else {}
        found = self._past(asked.with_values(values))
        return any(not math.isnan(value) for _, past in found for value in past)

    def shown(self, board: str, panel: str) -> bool:
        """True when each query of this panel had data at any moment."""
        found = [each for each in asked() if (each.board, each.panel) == (board, panel)]
        return bool(found) and all(self.answered(each) for each in found)

    def fired(self) -> set[str]:
        """Return the names of the alerts that fired at any moment."""
        return {labels["alertname"] for labels, _ in self._past('ALERTS{alertstate="firing"}')}

    def jobs(self) -> set[str]:
        """Return of which programs a pod was scraped."""
        return {labels["job"] for labels, _ in self._past("up == 1")}

    def _past(self, query: str) -> list[tuple[dict[str, str], list[float]]]:
        return self.server.ask_range(query, time.monotonic() - self.began, _STEP_S)


@contextmanager
def watching(folder: Path) -> Iterator[Watch]:
    """Scrape the cluster that KUBECONFIG names until the end."""
    rules = folder / "alerts.yaml"
    rules.write_text(hastened(ALERTS.read_text()))
    with prometheus(folder, rules) as server:
        yield Watch(server, time.monotonic())


def hastened(rules: str) -> str:
    """Return rules that look at one minute, and the one before, and fire at once.

    In a scenario nothing stays wrong for a quarter of an hour, and no certificate is a week old:
    all leaves are then about to expire. What `for` and wider windows do is tried with promtool.
    """
    sooner = re.sub(r"\[\d+m\]", "[1m]", rules).replace("7 * 86400", "60 * 86400")
    sooner = re.sub(r"offset \d+m", "offset 1m", sooner)
    body = yaml.safe_load(sooner)
    for group in body["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
    return str(yaml.safe_dump(body))
