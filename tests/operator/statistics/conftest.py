"""The example model's recorded losses, computed once for all tests of statistics."""

from __future__ import annotations

import pytest

from tests.operator.statistics.recording import Recording, record


@pytest.fixture(scope="session")
def recording() -> Recording:
    return record()
