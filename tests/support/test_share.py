"""A process has no more of the processor than its share."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.support.cpu import cpu_s
from tests.support.share import NoShares, shares


@pytest.fixture
def spinning() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _had(pid: int, seconds: float) -> float:
    """Return how many cores a process had for a while."""
    before_s, began_s = cpu_s(pid), time.monotonic()
    time.sleep(seconds)
    return (cpu_s(pid) - before_s) / (time.monotonic() - began_s)


def test_a_process_has_no_more_than_its_share(spinning: int) -> None:
    try:
        with shares({spinning: 0.1}):
            time.sleep(0.1)
            had = _had(spinning, 2)
    except NoShares as why:
        pytest.skip(str(why))
    assert had < 0.12
