"""A mixture that is served, from which plays go on."""

from __future__ import annotations

import asyncio

import pytest

from tests.operator.engine.play import Play
from tests.operator.engine.scenarios import from_nothing


@pytest.fixture(scope="session")
def served() -> Play:
    """Two experts and a gate that are served, the operator at rest; to be copied."""
    play = Play()
    asyncio.run(from_nothing(play))
    return play
