"""Fetching: whatever the network does, what comes out has the digest that was asked for."""

from __future__ import annotations

import hashlib
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPMessage
from io import BytesIO
from pathlib import Path
from urllib.request import Request

import pytest

from moe_artifacts.cache import Slot
from moe_artifacts.download import SafeRedirect
from moe_artifacts.errors import ArtifactError, Cancelled, Refused, Unavailable, WrongDigest
from moe_artifacts.fetch import Limits, fetch
from moe_artifacts.location import parse_uri
from moe_artifacts.stop import Stop
from tests.artifacts.file_server import Fault, FileServer, serving

CONTENT = bytes(range(256)) * 1200
DIGEST = hashlib.sha256(CONTENT).hexdigest()
QUICK = Limits(attempts=3, stall_s=20, backoff_s=0.001, max_backoff_s=0.01)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(FileServer(CONTENT)) as files:
        yield files


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "cache"


def leftovers(cache: Path) -> set[str]:
    return {path.name.removeprefix(DIGEST) for path in cache.iterdir()}


def test_a_mounted_file_is_used_in_place(tmp_path: Path) -> None:
    path = tmp_path / "with space.bin"
    path.write_bytes(CONTENT)
    assert fetch(f"file://{tmp_path}/with%20space.bin", DIGEST, None) == path


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        pytest.param(b"other", WrongDigest, "sha256 is d9298a10d1b0", id="other bytes"),
        pytest.param(None, Refused, "cannot be read: No such file", id="no file"),
    ],
)
def test_a_wrong_mounted_file_is_refused(
    tmp_path: Path, content: bytes | None, error: type[ArtifactError], message: str
) -> None:
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    with pytest.raises(error, match=message):
        fetch(f"file://{tmp_path}/x", DIGEST, None)


def test_a_download_is_kept_and_not_made_again(server: FileServer, cache: Path) -> None:
    path = fetch(server.uri, DIGEST, cache, limits=QUICK)
    assert path == cache / f"{DIGEST}.safetensors"
    assert path.read_bytes() == CONTENT
    assert fetch(server.uri, DIGEST, cache, limits=QUICK) == path
    assert len(server.requests) == 1
    assert leftovers(cache) == {".safetensors", ".lock"}


def test_a_kept_file_that_has_rotted_is_downloaded_again(server: FileServer, cache: Path) -> None:
    path = fetch(server.uri, DIGEST, cache)
    path.write_bytes(CONTENT[:-1] + b"!")
    assert fetch(server.uri, DIGEST, cache).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_progress_is_told_up_to_the_end(server: FileServer, cache: Path) -> None:
    told: list[tuple[int, int | None]] = []
    fetch(server.uri, DIGEST, cache, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_what_broke_off_goes_on_from_there(server: FileServer, cache: Path) -> None:
    server.faults = [Fault(cut=100_000), Fault(cut=50_000)]
    assert fetch(server.uri, DIGEST, cache, limits=QUICK).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]
    assert [request["If-Range"] for request in server.requests] == [None, '"one"', '"one"']


def test_breaking_off_is_no_failure_while_something_new_comes(
    server: FileServer, cache: Path
) -> None:
    server.faults = [Fault(cut=20_000)] * 10
    assert fetch(server.uri, DIGEST, cache, limits=QUICK).read_bytes() == CONTENT
    assert len(server.requests) == 11


def test_another_process_goes_on_where_one_gave_up(server: FileServer, cache: Path) -> None:
    server.faults = [Fault(cut=100_000), *[Fault(status=503)] * 3]
    with pytest.raises(Unavailable, match="status is 503"):
        fetch(server.uri, DIGEST, cache, limits=QUICK)
    assert leftovers(cache) == {".partial", ".validator", ".lock"}
    assert fetch(server.uri, DIGEST, cache, limits=QUICK).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=100000-"


def test_silence_is_left_and_the_rest_asked_for_anew(server: FileServer, cache: Path) -> None:
    server.faults = [Fault(cut=1000, stall=True)]
    assert (
        fetch(server.uri, DIGEST, cache, limits=replace(QUICK, stall_s=1)).read_bytes() == CONTENT
    )
    assert server.asked == [None, "bytes=1000-"]


def test_a_file_that_changed_on_the_server_is_begun_anew(server: FileServer, cache: Path) -> None:
    server.faults = [Fault(cut=1000, headers={"ETag": '"older"'})]
    assert fetch(server.uri, DIGEST, cache, limits=QUICK).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-"]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'], ids=["no tag", "weak tag"])
def test_pieces_of_two_different_files_are_noticed(cache: Path, etag: str | None) -> None:
    with serving(FileServer(CONTENT, etag=etag)) as server:
        Slot(cache, DIGEST).directory.mkdir(parents=True)
        Slot(cache, DIGEST).begin(None)
        Slot(cache, DIGEST).partial.write_bytes(b"of another file")
        assert fetch(server.uri, DIGEST, cache, limits=QUICK).read_bytes() == CONTENT
        assert server.asked == ["bytes=15-", None]
        assert [request["If-Range"] for request in server.requests] == [None, None]


def test_a_server_without_ranges_is_asked_for_all(cache: Path) -> None:
    with serving(FileServer(CONTENT, ranges=False, faults=[Fault(cut=1000)])) as server:
        assert fetch(server.uri, DIGEST, cache, limits=QUICK).read_bytes() == CONTENT


def test_more_than_the_file_kept_from_before_is_begun_anew(server: FileServer, cache: Path) -> None:
    cache.mkdir(parents=True)
    Slot(cache, DIGEST).partial.write_bytes(CONTENT + b"more")
    assert fetch(server.uri, DIGEST, cache, limits=QUICK).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT) + 4}-", None]


def test_a_whole_partial_needs_no_request(server: FileServer, cache: Path) -> None:
    cache.mkdir(parents=True)
    Slot(cache, DIGEST).partial.write_bytes(CONTENT)
    assert fetch(server.uri, DIGEST, cache).read_bytes() == CONTENT
    assert server.requests == []


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again(server: FileServer, cache: Path, status: int) -> None:
    server.faults = [Fault(status=status, headers={"Retry-After": "1"})] * 2
    assert fetch(server.uri, DIGEST, cache, limits=QUICK).read_bytes() == CONTENT
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501])
def test_a_final_answer_is_not_asked_for_twice(
    server: FileServer, cache: Path, status: int
) -> None:
    server.faults = [Fault(status=status)]
    with pytest.raises(Refused, match=f"{server.uri}: status is {status}"):
        fetch(server.uri, DIGEST, cache, limits=QUICK)
    assert len(server.requests) == 1
    assert not isinstance(Refused(""), Unavailable)


def test_wrong_bytes_are_refused_at_once_and_not_kept(server: FileServer, cache: Path) -> None:
    server.content = b"something else"
    with pytest.raises(WrongDigest, match=f"sha256 is [0-9a-f]{{64}}; {DIGEST} was asked for"):
        fetch(server.uri, DIGEST, cache, limits=QUICK)
    assert len(server.requests) == 1
    assert leftovers(cache) == {".lock"}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        pytest.param(
            Fault(headers={"Content-Length": "99999999"}),
            "has 99999999 bytes; at most 400000 are allowed",
            id="larger than allowed",
        ),
        pytest.param(
            Fault(headers={"Content-Encoding": "gzip"}),
            "Content-Encoding is 'gzip'; it must be identity",
            id="encoded",
        ),
        pytest.param(Fault(status=204), "status is 204; it must be 200", id="odd success"),
        pytest.param(
            Fault(status=206, headers={"Content-Range": "pages 1-2"}),
            "Content-Range is 'pages 1-2'; it must be",
            id="range that says nothing",
        ),
        pytest.param(
            Fault(status=302, headers={"Location": "file:///etc/passwd"}),
            "Redirection to url 'file:///etc/passwd' is not allowed",
            id="redirect to a file",
        ),
    ],
)
def test_an_odd_answer_is_refused(
    server: FileServer, cache: Path, fault: Fault, message: str
) -> None:
    server.faults = [fault]
    with pytest.raises(Refused, match=message):
        fetch(server.uri, DIGEST, cache, limits=Limits(max_bytes=400_000))


def test_an_endless_answer_is_ended(cache: Path) -> None:
    endless = Fault(headers={"Content-Length": ""})
    with (
        serving(FileServer(CONTENT, faults=[endless])) as server,
        pytest.raises(Refused, match="sends more than 1000 bytes"),
    ):
        fetch(server.uri, DIGEST, cache, limits=Limits(max_bytes=1000))
    assert leftovers(cache) == {".lock"}


def test_a_redirect_is_followed(server: FileServer, cache: Path) -> None:
    server.faults = [Fault(status=307, headers={"Location": "/elsewhere"})]
    assert fetch(server.uri, DIGEST, cache).read_bytes() == CONTENT


def test_a_redirect_in_a_circle_ends(server: FileServer, cache: Path) -> None:
    server.faults = [Fault(status=302, headers={"Location": "/x"})] * 20
    with pytest.raises(Refused, match="status is 302"):
        fetch(server.uri, DIGEST, cache, limits=QUICK)


def test_a_redirect_never_leaves_tls() -> None:
    request, headers = Request("https://host/x"), HTTPMessage()
    redirect = SafeRedirect().redirect_request
    with pytest.raises(Refused, match="redirects to 'http://host/x', which is not as safe"):
        redirect(request, BytesIO(), 302, "Found", headers, "http://host/x")
    followed = redirect(request, BytesIO(), 302, "Found", headers, "https://other/x")
    assert followed is not None
    assert followed.full_url == "https://other/x"


def test_nobody_there_is_worth_another_try(cache: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(Unavailable, match=r"does not answer .*refused"):
        fetch(f"http://127.0.0.1:{port}/x", DIGEST, cache, limits=QUICK)


def test_no_http_at_all_is_worth_another_try(cache: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def babble() -> None:
            for _ in range(QUICK.attempts):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"hello\r\n\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        with pytest.raises(Unavailable, match="does not answer"):
            fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/x", DIGEST, cache, limits=QUICK)
        thread.join()


def test_cancelling_ends_it_and_keeps_what_came(server: FileServer, cache: Path) -> None:
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        fetch(server.uri, DIGEST, cache, cancel=cancel, progress=lambda *_: cancel.set())
    assert Slot(cache, DIGEST).partial.stat().st_size > 0
    assert fetch(server.uri, DIGEST, cache).read_bytes() == CONTENT


def test_the_deadline_ends_a_silent_download(server: FileServer, cache: Path) -> None:
    server.faults = [Fault(cut=1000, stall=True)]
    with pytest.raises(Unavailable, match="ran out of time"):
        fetch(server.uri, DIGEST, cache, timeout_s=0.2)
    assert Slot(cache, DIGEST).partial.stat().st_size == 1000


def test_the_deadline_ends_waiting_for_another_process(server: FileServer, cache: Path) -> None:
    with (
        Slot(cache, DIGEST).locked(Stop()),
        pytest.raises(Unavailable, match="ran out of time"),
    ):
        fetch(server.uri, DIGEST, cache, timeout_s=0.1)
    assert server.requests == []


def test_processes_that_want_the_same_share_one_download(server: FileServer, cache: Path) -> None:
    server.faults = [Fault(cut=10_000)] * 3
    program = (
        "import sys; from pathlib import Path; from moe_artifacts.fetch import fetch\n"
        "print(fetch(sys.argv[1], sys.argv[2], Path(sys.argv[3])))"
    )
    command = [sys.executable, "-c", program, server.uri, DIGEST, str(cache)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [child.communicate(timeout=60)[0] for child in children]
    assert said == [f"{cache / DIGEST}.safetensors\n"] * 4
    assert len(server.requests) == 4
    assert (cache / f"{DIGEST}.safetensors").read_bytes() == CONTENT


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let this process write no file larger than `size`, as if the disk were full then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_worth_another_try_and_nothing_is_lost(
    server: FileServer, cache: Path
) -> None:
    with room_for(100_000), pytest.raises(Unavailable, match=r"cannot be written .* make room"):
        fetch(server.uri, DIGEST, cache, limits=QUICK)
    assert fetch(server.uri, DIGEST, cache, limits=QUICK).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=100000-"


def test_a_cache_that_cannot_be_made_is_refused(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(Refused, match=r"cache .* cannot be written to"):
        fetch(server.uri, DIGEST, tmp_path / "cache")
    with pytest.raises(Refused, match="needs a cache directory"):
        fetch(server.uri, DIGEST, None)


def test_trouble_inside_the_cache_is_worth_another_try(server: FileServer, cache: Path) -> None:
    cache.mkdir(parents=True)
    Slot(cache, DIGEST).partial.write_bytes(CONTENT[:9])
    (cache / f"{DIGEST}.validator").mkdir()
    with pytest.raises(Unavailable, match=f"the cache at {cache}/{DIGEST}.validator: Is a dir"):
        fetch(server.uri, DIGEST, cache, limits=QUICK)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        pytest.param("", "it must be file:///path, http", id="empty"),
        pytest.param("/path", "it must be file:///path, http", id="a path"),
        pytest.param("s3://bucket/x", "it must be file:///path, http", id="another scheme"),
        pytest.param("ftp://host/x", "it must be file:///path, http", id="ftp"),
        pytest.param("http:///x", "it must be file:///path, http", id="no host"),
        pytest.param("http://host:port/x", "it must be file:///path, http", id="no port"),
        pytest.param("http://[::1/x", "it must be file:///path, http", id="half an address"),
        pytest.param("http://me:secret@host/x", "user or password", id="password"),
        pytest.param("http://host/x#top", "no # in it", id="fragment"),
        pytest.param("http://host/a b", "printable ASCII", id="space"),
        pytest.param("http://host/\r\nX: y", "printable ASCII", id="header smuggled in"),
        pytest.param("http://höst/x", "printable ASCII", id="umlaut"),
        pytest.param("file://host/x", "without host", id="file on a host"),
        pytest.param("file:///x?y", "without host or", id="file with a query"),
        pytest.param("file://", "without host", id="file without a path"),
        pytest.param("file:///x%00y", "without host", id="zero byte"),
    ],
)
def test_a_bad_uri_is_refused(uri: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        parse_uri(uri)


@pytest.mark.parametrize("sha256", ["", "abc", DIGEST.upper(), f"sha256:{DIGEST}"])
def test_a_bad_digest_is_refused(sha256: str) -> None:
    with pytest.raises(Refused, match="64 lower-case hexadecimal digits"):
        fetch("file:///x", sha256, None)


def test_a_password_is_never_repeated() -> None:
    parse: Callable[[str], object] = parse_uri
    with pytest.raises(Refused) as caught:
        parse("https://me:secret@host/x")
    assert "secret" not in str(caught.value)
