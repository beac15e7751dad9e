"""What gates chose, read from a real router through a forward as kubectl's would be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kubectl_moe.cluster import ClusterError
from kubectl_moe.forward import Forwards, to_reading
from kubectl_moe.gate_loads import total
from moe_core.drift import GROUPS, group_of
from moe_core.table import Failover, Rung
from moe_core.worker_load import WorkerLoad
from moe_operator.asking import GrpcAsker
from moeops.v1.router_pb2 import DescribeResponse, LinkState, SequenceRows
from tests.kubectl import port_forward
from tests.router.process import RouterProcess, spawn
from tests.support.dispatching import Caller, dispatch_request
from tests.support.tables import TableFile, expert, gate, table

# No worker is there: the residual alone answers, and the gate's choice counts all the same.
RESIDUAL = Failover(ladder=(Rung.RESIDUAL,), max_degraded_percent=100)


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RouterProcess, str]]:
    content = table([expert("e0"), expert("e1")], [gate(("e0", "e1"), top_k=1)], failover=RESIDUAL)
    file = TableFile(tmp_path_factory.mktemp("table") / "table.yaml", content)
    with spawn(mixture="tiny", table_file=str(file.path), workers="127.0.0.1:1") as running:
        running.wait_for_epoch(1)
        with Caller(running.address) as caller:
            sessions = [SequenceRows(session="s", rows=3)]
            request = dispatch_request(content, [[0], [1], [1]], sessions=sessions)
            (answer,) = caller.dispatch(request)
            assert not answer.HasField("failure"), answer.failure
        yield running, content.gates[0].stable.sha256


def forwards(places: str, timeout_s: float = 30) -> Forwards:
    command = [sys.executable, str(Path(port_forward.__file__)), places]
    return Forwards(command, "test", timeout_s)


def test_a_router_is_read_again_and_again_through_one_forward(
    router: tuple[RouterProcess, str],
) -> None:
    running, sha256 = router
    with closing(forwards(f"r1={running.address}")) as routers:
        readings, silent = routers.read(["r1"], [sha256])
        again, _ = routers.read(["r1"], [sha256])
    assert silent == ()
    ((of, load),) = total(readings).items()
    assert (of.gate, of.sha256, of.layer, of.shadow) == ("gate", sha256, 0, False)
    assert (load.rows, load.pairs, load.scored_rows) == (3, (1, 2), 0)
    assert again == readings
    assert readings[0].incarnation == running.describe().incarnation


def test_pairs_by_group_of_sessions_come_where_they_are_asked_for(
    router: tuple[RouterProcess, str],
) -> None:
    running, sha256 = router
    with closing(forwards(f"r1={running.address}")) as routers:
        readings, _ = routers.read(["r1"], [sha256], grouped=True)
    (load,) = total(readings).values()
    first = 2 * group_of("s")
    assert load.groups[first : first + 2] == (1, 2)
    assert sum(load.groups) == 3
    assert len(load.groups) == 2 * GROUPS


async def test_the_operator_asks_for_them_too(router: tuple[RouterProcess, str]) -> None:
    running, sha256 = router
    asker = GrpcAsker()
    watched = await asker.router(running.address, (), (sha256,))
    assert sum(watched.tallies[sha256][0, ""].pairs) == 3
    assert watched.versions == {}
    assert (await asker.router(running.address, (sha256,), ())).tallies == {}
    await asker.forget(frozenset())


def test_what_gives_no_reading_is_told_with_its_reason(router: tuple[RouterProcess, str]) -> None:
    running, sha256 = router
    with closing(forwards(f"r1={running.address},r2=127.0.0.1:1")) as routers:
        readings, silent = routers.read(["r1", "r2", "r3"], [sha256])
        assert [reading.router for reading in readings] == ["r1"]
        assert len(silent) == 2
        assert silent[0].startswith("router r2: UNAVAILABLE")
        assert silent[1] == 'router r3: Error from server (NotFound): pods "r3" not found'
        readings, silent = routers.read(["r1"], [sha256])
        assert len(readings) == 1


def test_workers_are_heard_by_links_that_speak() -> None:
    links = [
        LinkState(
            worker=state,
            incarnation="i",
            state=LinkState.State.Value(state),
            queued_rows=1,
            busy_us=2,
            computed_rows=3,
            queued_attempts=4,
            queue_us=5,
        )
        for state in ("CONNECTING", "LIVE", "SILENT", "DRAINING")
    ]
    reading = to_reading("r1", DescribeResponse(incarnation="one", links=links), 6.0)
    load = WorkerLoad("i", queued_rows=1, busy_us=2, rows=3, queued_attempts=4, queue_us=5)
    assert reading.workers == {"LIVE": load, "DRAINING": load}
    assert (reading.router, reading.incarnation, reading.at) == ("r1", "one", 6.0)


def test_a_machine_without_kubectl_is_told_so() -> None:
    with (
        closing(Forwards(["/nowhere/kubectl"], "test", 1)) as routers,
        pytest.raises(ClusterError, match="kubectl cannot be run"),
    ):
        routers.read(["r1"], [])
