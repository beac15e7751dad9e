"""What people would have seen of all other scenarios: every panel had data, and alerts fired.

It comes last, and only where the whole suite runs.
"""

from __future__ import annotations

from collections.abc import Mapping

from e2e.stage.watching import Watch
from tests.dashboards.files import alerts, asked

# What may have no answer even here, and why.
MAY_BE_EMPTY: Mapping[tuple[str, str], str] = {}


def test_all_programs_were_scraped(watch: Watch) -> None:
    assert watch.jobs() == {"operator", "router", "worker"}


def test_every_panel_had_data(watch: Watch) -> None:
    empty = {(a.board, a.panel) for a in asked() if not watch.answered(a)}
    assert empty <= MAY_BE_EMPTY.keys()


def test_every_alert_fired(watch: Watch) -> None:
    assert watch.fired() == {rule["alert"] for rule in alerts()}
