"""Asks a Prometheus over HTTP. Only reads."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_TIMEOUT_S: Final = 30.0


class NoAnswer(RuntimeError):
    """A Prometheus cannot be reached, or refuses a query; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Span:
    """Times in seconds of Unix: from, to, and between two points."""

    begin: int
    end: int
    step: int


@dataclass(frozen=True, slots=True)
class Series:
    """Labels, and (time, value) in rising order; NaN stands in it as it came."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]

    @property
    def last(self) -> float:
        return self.points[-1][1]


class Prometheus:
    """The HTTP API at an address."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def over(self, query: str, span: Span) -> tuple[Series, ...]:
        """Return what a query gives over a time. Raises NoAnswer."""
        times = {"start": str(span.begin), "end": str(span.end), "step": str(span.step)}
        found = self._get("query_range", {"query": query, **times})["result"]
        return tuple(Series(one["metric"], _points(one["values"])) for one in found)

    def at(self, query: str, time: int) -> tuple[Series, ...]:
        """Return what a query gives at one time. Raises NoAnswer."""
        found = self._get("query", {"query": query, "time": str(time)})["result"]
        return tuple(Series(one["metric"], _points([one["value"]])) for one in found)

    def values(self, label: str, selector: str, span: Span) -> tuple[str, ...]:
        """Return the values of a label among the series that a selector finds. Raises NoAnswer."""
        asked = {"match[]": selector, "start": str(span.begin), "end": str(span.end)}
        return tuple(self._get(f"label/{label}/values", asked))

    def _get(self, path: str, asked: Mapping[str, str]) -> Any:
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(asked)}"
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode(errors="replace")
            raise NoAnswer(f"{self._url} refuses {asked}: {said}") from None
        except (OSError, ValueError) as error:
            raise NoAnswer(f"{self._url} does not answer as a Prometheus: {error}") from None


def _points(values: list[list[Any]]) -> tuple[tuple[float, float], ...]:
    return tuple((float(time), float(value)) for time, value in values)
