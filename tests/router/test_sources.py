"""Where tables and workers come from: files, the API server with all its troubles, copies."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from moe_core.parts import Part, head_of, part_name, split, table_of
from moe_core.table import Table
from moe_router import said
from moe_router.kube import ApiServer, TooOld, Unreachable
from moe_router.sources import EndpointSlices, TableFile, TableObject, addresses
from moe_router.tables import Tables
from tests.fakes.kube import GONE, ScriptedApi, event, listed
from tests.fakes.worker import until
from tests.support import tables as made


def table_body(epoch: int, *, uid: str = made.UID, version: int | None = None) -> dict[str, Any]:
    content = made.table([made.expert("e0")], [made.gate(["e0"], top_k=1)], epoch=epoch)
    body: dict[str, Any] = made.to_object(content)
    meta = {**body["metadata"], "uid": uid, "resourceVersion": str(version or epoch)}
    return {**body, "metadata": meta}


class Watcher:
    """Follows a scripted API server into Tables."""

    def __init__(self, api: ScriptedApi) -> None:
        self.now_s = 0.0
        self.tables = Tables("tiny", lambda: self.now_s)
        self.seen: list[tuple[str, int]] = []
        self.tables.on_change(lambda view: self.seen.append((view.table.uid, view.table.epoch)))
        self.source = TableObject(api, "default", "tiny")

    @property
    def epoch(self) -> int:
        return self.tables.view.table.epoch if self.tables.view else 0


@asynccontextmanager
async def watching(api: ScriptedApi) -> AsyncIterator[Watcher]:
    watcher = Watcher(api)
    task = asyncio.create_task(watcher.source.follow(watcher.tables.offer, watcher.tables.confirm))
    try:
        yield watcher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_listed_table_and_each_later_one_is_taken() -> None:
    api = ScriptedApi(
        listed(1, table_body(1)),
        [event("MODIFIED", table_body(2)), event("MODIFIED", table_body(3))],
    )
    async with watching(api) as watcher:
        await until(lambda: watcher.epoch == 3, "epoch 3")

        assert [epoch for _, epoch in watcher.seen] == [1, 2, 3]
        assert api.calls[0] == {"fieldSelector": "metadata.name=tiny"}
        assert api.calls[1]["resourceVersion"] == "1"
        assert api.calls[1]["allowWatchBookmarks"] == "true"


def in_parts(epoch: int) -> tuple[dict[str, Any], list[Part]]:
    """Return a head, and its parts."""
    body = table_body(epoch)
    parts = list(split(body["spec"], ()))
    return {**body, "spec": head_of(body["spec"], parts)}, parts


def revision(part: Part) -> dict[str, Any]:
    return {"metadata": {"name": part_name("tiny", part.sha256)}, "data": part.to_data()}


async def test_a_head_is_taken_with_its_parts_and_each_of_them_is_read_once() -> None:
    head, parts = in_parts(2)
    whole = {**table_body(3)["spec"], "trunkSha256": "7" * 64}
    later = split(whole, parts)
    (changed,) = [part for part in later if part not in parts]
    next_head = {**table_body(3), "spec": head_of(whole, later)}
    api = ScriptedApi(
        listed(1, table_body(1)),
        [event("MODIFIED", head), event("MODIFIED", next_head)],
        *map(revision, parts),
        revision(changed),
    )
    async with watching(api) as watcher:
        await until(lambda: watcher.epoch == 3, "epoch 3")

        assert watcher.seen == [(made.UID, 1), (made.UID, 2), (made.UID, 3)]
        assert watcher.tables.view is not None
        assert watcher.tables.view.table.trunk_sha256 == "7" * 64
        assert watcher.tables.view.table.experts[0].expert_id == "e0"


@pytest.mark.parametrize("wrong", ["missing", "another", "damaged"])
async def test_a_head_whose_part_is_not_what_it_should_be_leaves_the_last_table(wrong: str) -> None:
    head, (first, *others) = in_parts(2)
    steps: dict[str, Any] = {
        "missing": Unreachable("HTTP 404 Not Found"),
        "another": revision(others[0]),
        "damaged": {"data": {"bucket": "three"}},
    }
    api = ScriptedApi(listed(1, table_body(1)), [event("MODIFIED", head)], steps[wrong])
    async with watching(api) as watcher:
        await until(lambda: len(api.calls) >= 4, "it lists again")
        assert watcher.epoch == 1
        watcher.now_s = 60.0
        assert watcher.tables.age_s == 60.0

        api.add(listed(7, head), *map(revision, (first, *others)))
        await until(lambda: watcher.epoch == 2, "all parts are there")
        await until(lambda: watcher.tables.age_s == 0.0, "it is confirmed")


async def test_a_part_with_a_row_that_cannot_be_read_leaves_the_last_table(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    body = table_body(2)
    body["spec"]["experts"][0]["role"] = "Boss"
    parts = split(body["spec"], ())
    head = {**body, "spec": head_of(body["spec"], parts)}
    api = ScriptedApi(
        listed(1, table_body(1)), [event("MODIFIED", head)], *map(revision, parts), []
    )
    async with watching(api) as watcher:
        await until(lambda: len(api.calls) >= 3 + len(parts), "it goes on watching")
        await until(lambda: "table_refused" in caplog.messages, "it is refused")

        assert watcher.epoch == 1
        (told,) = [r.__dict__["fields"] for r in caplog.records if r.msg == "table_refused"]
        assert ".spec.experts[0].role is 'Boss'; it must be one of" in told["reason"]


async def test_a_table_is_read_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large one takes longer than clients wait for a sign of life."""
    threads = []

    def noting(body: Any, find: Any) -> Table:
        threads.append(threading.current_thread())
        return table_of(body, find)

    monkeypatch.setattr(said, "table_of", noting)
    head, parts = in_parts(2)
    api = ScriptedApi(
        listed(1, table_body(1)), [event("MODIFIED", head)], *map(revision, parts), []
    )
    async with watching(api) as watcher:
        await until(lambda: watcher.epoch == 2, "epoch 2")

        assert len(threads) == 2
        assert threading.main_thread() not in threads


async def test_a_watch_that_ends_goes_on_where_it_was() -> None:
    bookmark = event("BOOKMARK", {"metadata": {"resourceVersion": "9"}})
    api = ScriptedApi(listed(1, table_body(1)), [bookmark], [event("MODIFIED", table_body(2))])
    async with watching(api) as watcher:
        await until(lambda: watcher.epoch == 2, "epoch 2")

        assert [call.get("resourceVersion") for call in api.calls[:3]] == [None, "1", "9"]


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param([event("ERROR", GONE)], id="410 in the stream"),
        pytest.param(TooOld("path"), id="410 as the answer"),
        pytest.param([event("ERROR", {"code": 500, "message": "no"})], id="another error"),
        pytest.param([Unreachable("cut")], id="cut in the middle"),
        pytest.param(Unreachable("refused"), id="nobody there"),
    ],
)
async def test_after_every_trouble_it_lists_again_and_the_last_table_stands(trouble: Any) -> None:
    api = ScriptedApi(listed(1, table_body(1)), trouble)
    async with watching(api) as watcher:
        await until(lambda: len(api.calls) >= 2, "the trouble")
        assert watcher.epoch == 1

        api.add(listed(7, table_body(4)))
        await until(lambda: watcher.epoch == 4, "epoch 4")
        assert "watch" not in api.calls[2]


async def test_a_lagging_server_takes_nothing_back() -> None:
    api = ScriptedApi(listed(5, table_body(5)), [Unreachable("cut")], listed(3, table_body(3)), [])
    async with watching(api) as watcher:
        await until(lambda: len(api.calls) >= 4, "a list from the lagging server")
        await asyncio.sleep(0)

        assert [epoch for _, epoch in watcher.seen] == [5]


async def test_a_table_made_again_counts_from_its_own_beginning() -> None:
    api = ScriptedApi(
        listed(5, table_body(5)),
        [event("DELETED", table_body(5)), event("ADDED", table_body(1, uid="new", version=9))],
    )
    async with watching(api) as watcher:
        await until(lambda: watcher.epoch == 1, "the new table")

        assert watcher.seen == [(made.UID, 5), ("new", 1)]


async def test_a_deleted_table_is_served_on_and_its_age_grows() -> None:
    api = ScriptedApi(listed(5, table_body(5)), [event("DELETED", table_body(5, version=6))])
    async with watching(api) as watcher:
        await until(lambda: len(api.calls) >= 3, "the deletion")
        await asyncio.sleep(0.01)
        watcher.now_s = 60.0
        api.add([])
        await until(lambda: len(api.calls) >= 4, "another watch without it")
        await asyncio.sleep(0.01)

        assert watcher.epoch == 5
        assert watcher.tables.age_s == 60.0


async def test_a_watch_that_goes_well_keeps_the_table_young() -> None:
    api = ScriptedApi(listed(5, table_body(5)))
    async with watching(api) as watcher:
        await until(lambda: watcher.epoch == 5, "the table")
        watcher.now_s = 60.0
        assert watcher.tables.age_s == 60.0

        api.add([])
        await until(lambda: watcher.tables.age_s == 0.0, "it is confirmed")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param({"spec": None}, id="no spec"),
        pytest.param({"spec": {"mixture": "tiny", "epoch": "two"}}, id="an epoch that is text"),
        pytest.param({"spec": {**table_body(2)["spec"], "mixture": "big"}}, id="another mixture"),
        pytest.param({"spec": {**table_body(2)["spec"], "dtype": "Int8"}}, id="unknown dtype"),
    ],
)
async def test_a_table_that_cannot_be_read_leaves_the_last_in_place(damage: dict[str, Any]) -> None:
    bad = {**table_body(2), **damage}
    api = ScriptedApi(listed(1, table_body(1)), [event("MODIFIED", bad)])
    async with watching(api) as watcher:
        await until(lambda: len(api.calls) >= 3, "the damaged table")

        assert watcher.epoch == 1
        api.add([event("MODIFIED", table_body(3))])
        await until(lambda: watcher.epoch == 3, "a good one")


def slice_body(name: str, *hosts: str, port: str = "link") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "resourceVersion": "1"},
        "ports": [{"name": port, "port": 7100}, {"name": "control", "port": 7101}],
        "endpoints": [{"addresses": [h], "conditions": {"ready": False}} for h in hosts],
    }


async def test_events_that_are_no_objects_do_not_end_the_watch() -> None:
    api = ScriptedApi(listed(1, table_body(1)), [event("MODIFIED", {"kind": "Status"})], {})
    async with watching(api) as watcher:
        await until(lambda: len(api.calls) >= 3, "it lists again")
        api.add(listed(2, table_body(2)))
        await until(lambda: watcher.epoch == 2, "epoch 2")


async def test_endpoints_are_taken_from_all_slices_ready_or_not() -> None:
    api = ScriptedApi(
        listed(1, slice_body("a", "10.0.0.1"), slice_body("b", "10.0.0.2")),
        [event("MODIFIED", slice_body("b", "10.0.0.3")), event("DELETED", slice_body("a"))],
    )
    seen: list[frozenset[str]] = []
    source = EndpointSlices(api, "default", "tiny-workers")
    task = asyncio.create_task(source.follow(lambda found: seen.append(frozenset(found))))
    await until(lambda: len(seen) == 3, "three states")
    task.cancel()

    assert seen[0] == {"10.0.0.1:7100", "10.0.0.2:7100"}
    assert seen[1] == {"10.0.0.1:7100", "10.0.0.3:7100"}
    assert seen[2] == {"10.0.0.3:7100"}
    assert api.calls[0] == {"labelSelector": "kubernetes.io/service-name=tiny-workers"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(slice_body("a", "fd00::1"), {"[fd00::1]:7100"}, id="six"),
        pytest.param(slice_body("a", "10.0.0.1", port="grpc"), set(), id="no port named link"),
        pytest.param(
            slice_body("a", "10.0.0.1", port="link-tls"), {"tls:10.0.0.1:7100"}, id="with TLS"
        ),
        pytest.param({"ports": None, "endpoints": None}, set(), id="an empty slice"),
        pytest.param({"endpoints": [{"addresses": None}], "ports": []}, set(), id="no addresses"),
    ],
)
def test_odd_slices(body: dict[str, Any], expected: set[str]) -> None:
    assert addresses({"a": body}) == expected


async def test_a_file_is_read_again_when_it_changes_and_kept_through_nonsense(
    tmp_path: Path,
) -> None:
    path = tmp_path / "table.yaml"
    tables = Tables("tiny", lambda: 0.0)
    task = asyncio.create_task(TableFile(path).follow(tables.offer, tables.confirm))

    def epoch() -> int:
        return tables.view.table.epoch if tables.view else 0

    path.write_text(yaml.safe_dump(table_body(1)))
    await until(lambda: epoch() == 1, "epoch 1")
    for nonsense in ("{", "[1, 2]", "a: &b"):
        path.write_text(nonsense)
        await asyncio.sleep(0.12)
    assert epoch() == 1
    path.write_text(json.dumps(table_body(2)))
    await until(lambda: epoch() == 2, "epoch 2")
    task.cancel()


class _Handler(BaseHTTPRequestHandler):
    """Answers /ok with JSON, /watch with two lines cut in odd places, all else with its number."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/watch":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (b'{"type":"ADD', b'ED"}\n{"type":"MOD', b'IFIED"}\n'):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
            return
        code = 200 if path == "/ok" else int(path[1:])
        body = json.dumps({"query": query, "auth": self.headers.get("Authorization")}).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def api_server(directory: Path) -> Iterator[Path]:
    """Serve, and give a kubeconfig for it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [
            {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        ],
        "users": [{"name": "c", "user": {"token": "secret"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    }
    file = directory / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    yield file
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_api_server_is_asked_with_the_kubeconfigs_token(tmp_path: Path) -> None:
    with api_server(tmp_path) as file:
        api = ApiServer(str(file))

        body = api.read("/ok", {"fieldSelector": "metadata.name=tiny"})
        events = list(api.events("/watch", {}))

        assert body == {"query": "fieldSelector=metadata.name%3Dtiny", "auth": "Bearer secret"}
        assert [e["type"] for e in events] == ["ADDED", "MODIFIED"]
        with pytest.raises(TooOld):
            api.read("/410", {})
        for code in (403, 404, 500):
            with pytest.raises(Unreachable, match=str(code)):
                api.read(f"/{code}", {})
    with pytest.raises(Unreachable):
        api.read("/ok", {})
