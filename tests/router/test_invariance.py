"""A row has one answer, whatever is asked with it: by the bits that leave a router, in each dtype.

Real router, real worker. What holds of the kernel alone is in `tests/core/test_kernel.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe_core.table import Failover, Rung
from moeops.v1.router_pb2 import DispatchRequest, RowsResponse
from tests.router.process import spawn as spawn_router
from tests.support.artifacts import write_expert
from tests.support.dispatching import Caller, dispatch_request, rows_of
from tests.support.tables import TableFile, expert, gate, table, version
from tests.worker.process import spawn as spawn_worker

HIDDEN = 64
IDS = ("e0", "e1")
DTYPES = ("Float32", "BFloat16", "Float16")
ROW = np.random.default_rng(5).standard_normal(HIDDEN)
TRIES, UNAVAILABLE = 100, 14
OTHER_ROW = np.random.default_rng(6).standard_normal(HIDDEN)


class Served:
    """A router over one worker, for rows of one dtype."""

    def __init__(self, content: Any, caller: Caller) -> None:
        self._content, self._caller = content, caller

    def digests(self, row: Any, batches: Sequence[tuple[int, int, float | None]]) -> set[str]:
        """Return the sha256 of the row's answers, at a place of batches of others, all at once."""
        requests = []
        for seed, (size, at, value) in enumerate(batches):
            hidden = np.random.default_rng(seed).standard_normal((size, HIDDEN))
            if value is not None:
                hidden[:] = value
            hidden[at] = row
            requests.append(dispatch_request(self._content, [[0, 1]] * size, hidden=hidden))
        places = zip(self._whole(requests), batches, strict=True)
        rows = [rows_of(self._content, answer)[at] for answer, (_, at, _) in places]
        return {hashlib.sha256(one.tobytes()).hexdigest() for one in rows}

    def _whole(self, requests: Sequence[DispatchRequest]) -> list[RowsResponse]:
        """Ask again what a worker without processor time did not answer: nothing else may."""
        answers = self._caller.dispatch(*requests, timeout_s=60)
        for _ in range(TRIES):
            again = [n for n, one in enumerate(answers) if one.failure.code == UNAVAILABLE]
            if again:
                asked = self._caller.dispatch(*(requests[n] for n in again), timeout_s=60)
                for n, answer in zip(again, asked, strict=True):
                    answers[n] = answer
        return answers


@pytest.fixture(scope="module", params=DTYPES)
def served(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory: Path = tmp_path_factory.mktemp("invariance")
    dtype: str = request.param
    written = [write_expert(directory, hidden_size=HIDDEN, dtype=dtype, seed=n) for n in range(2)]
    named = list(zip(IDS, written, strict=True))
    rows = [expert(name, version("v1", one.sha256, one.uri)) for name, one in named]
    failover = Failover(ladder=(Rung.REPLICA,))
    content = table(rows, [gate(IDS)], hidden_size=HIDDEN, dtype=dtype, failover=failover)
    file = TableFile(directory / "table.yaml", content)
    assigned = [one.assigned(name) for name, one in named]
    with (
        spawn_worker(assigned, HIDDEN, dtype=dtype) as worker,
        spawn_router(mixture="tiny", table_file=str(file.path), workers=worker.link) as router,
        Caller(router.address) as caller,
    ):
        router.wait_until_routable([one.sha256 for one in written])
        yield Served(content, caller)


ALONE = (1, 0, None)
AMONG = [
    *[(size, at, None) for size in (2, 3, 16, 33, 257) for at in {0, size // 2, size - 1}],
    *[(40, at, value) for at in (0, 17, 39) for value in (np.nan, np.inf, -8.0, 0.0)],
]


def test_a_row_has_the_bits_that_it_has_alone(served: Served) -> None:
    (alone,) = served.digests(ROW, [ALONE])

    assert served.digests(ROW, AMONG) == {alone}


def test_another_row_has_others(served: Served) -> None:
    assert not served.digests(ROW, [ALONE]) & served.digests(OTHER_ROW, [ALONE])
