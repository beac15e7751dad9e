"""Asks a program for its metrics as Prometheus does, and reads them with prometheus-client.

scraped = scrape(router.metrics)
scraped.value("moeops_router_requests_total", mixture="tiny")
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client.core import Exemplar
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from moe_core.exposition import pieces
from moe_core.metrics import Collector

# As Prometheus 2.42 asks.
ACCEPT = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PLAIN = "text/plain"


@dataclass(frozen=True)
class Scraped:
    """What a program said, as text and by (name, labels)."""

    text: str
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float]
    types: dict[str, str]
    exemplars: dict[tuple[str, frozenset[tuple[str, str]]], Exemplar] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str, *, om: bool = True) -> Scraped:
        """Read it. AssertionError where one series is there twice."""
        samples, types, exemplars = {}, {}, {}
        for family in (openmetrics if om else plain)(text):
            types[family.name] = family.type
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in samples, f"{key} is there twice"
                samples[key] = sample.value
                if sample.exemplar is not None:
                    exemplars[key] = sample.exemplar
        return cls(text, samples, types, exemplars)

    def value(self, name: str, /, **labels: str) -> float:
        return self.samples[name, frozenset(labels.items())]

    def of(self, name: str, /, **labels: str) -> dict[tuple[str, ...], float]:
        """Return what has these labels and others, by the others' values in order of names."""
        wanted = set(labels.items())
        return {
            tuple(value for key, value in sorted(own) if key not in labels): number
            for (sample, own), number in self.samples.items()
            if sample == name and wanted <= own
        }

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.samples}


def scrape(address: str, accept: str = ACCEPT) -> Scraped:
    """Ask `host:port`."""
    request = urllib.request.Request(f"http://{address}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=20) as response:
        text = response.read().decode()
        assert int(response.headers["Content-Length"]) == len(text.encode())
        return Scraped.read(text, om="openmetrics" in response.headers["Content-Type"])


def read(collector: Collector, *, om: bool = True) -> Scraped:
    """Collect in this process."""
    encode, _ = choose_encoder(ACCEPT if om else PLAIN)
    return Scraped.read(b"".join(pieces(collector, encode)).decode(), om=om)


def rises(before: Scraped, after: Scraped, names: Iterable[str]) -> None:
    """AssertionError where one of these counters fell."""
    for name in names:
        for (sample, labels), value in before.samples.items():
            if sample == name and (sample, labels) in after.samples:
                assert after.samples[sample, labels] >= value, (sample, labels)
