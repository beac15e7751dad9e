"""One try to bring the rest of a file over http(s) into its place in the cache.

It resumes where the last try broke off, if the server says that it still has the same file, and
hashes on the way. It never decides to try again: it raises Unavailable, and leaves what has come.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPMessage, HTTPResponse
from io import FileIO
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from moe_artifacts.cache import Slot, writing
from moe_artifacts.errors import Refused, Unavailable, WrongDigest
from moe_artifacts.stop import Stop

Progress = Callable[[int, int | None], None]
"""Called with bytes done and bytes in all, if the server says how many."""

_PIECE_BYTES = 1 << 20
_TRANSIENT = frozenset({408, 425, 429, *range(500, 600)}) - {501, 505}
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")


class Overloaded(Unavailable):
    """The server asks to be left alone for `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one try needs to know. `stall_s`: longest time without a byte."""

    url: str
    slot: Slot
    max_bytes: int
    stall_s: float
    stop: Stop
    progress: Progress

    def run(self) -> None:
        """Fill `slot.partial` and verify it, or raise.

        Raises WrongDigest or Refused where it is no use to try again, Unavailable where it is, and
        what `stop` raises.
        """
        digest, have = self._hash_partial()
        if have and digest.hexdigest() == self.slot.sha256:
            return
        request = Request(self.url, headers=self._headers(have))
        try:
            timeout = self.stop.at_most(self.stall_s)
            with _opener().open(request, timeout=timeout) as response:
                self._receive(response, digest, have)
        except (HTTPException, OSError) as error:
            raise _judge(self.url, error, self.slot) from None

    def _hash_partial(self) -> tuple[Any, int]:
        digest, have = hashlib.sha256(), 0
        if self.slot.partial.exists():
            with self.slot.partial.open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    self.stop.check()
                    digest.update(piece)
                    have += len(piece)
        return digest, have

    def _headers(self, have: int) -> dict[str, str]:
        headers = {"User-Agent": "moeops", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if validator := self.slot.validator():
                headers["If-Range"] = validator
        return headers

    def _receive(self, response: HTTPResponse, digest: Any, have: int) -> None:
        start, total = _extent(response, self.url)
        if start not in (0, have):
            self.slot.discard()
            raise Unavailable(f"{self.url}: the server sent bytes from {start}; {have} was asked")
        if total is not None and total > self.max_bytes:
            raise Refused(f"{self.url} has {total} bytes; at most {self.max_bytes} are allowed")
        if start == 0:
            digest = hashlib.sha256()
            self.slot.begin(_validator(response.headers))
        done = self._copy(response, digest, start, total)
        if total is not None and done < total:
            raise Unavailable(f"{self.url} broke off after {done} of {total} bytes")
        if digest.hexdigest() != self.slot.sha256:
            self.slot.discard()
            seen = digest.hexdigest()
            message = f"{self.url}: sha256 is {seen}; {self.slot.sha256} was asked for"
            trustworthy = start == 0 and total is not None
            raise WrongDigest(message) if trustworthy else Unavailable(message)

    def _copy(self, response: HTTPResponse, digest: Any, done: int, total: int | None) -> int:
        with self.slot.partial.open("ab", buffering=0) as file:
            while piece := response.read1(_PIECE_BYTES):
                done += len(piece)
                if done > (self.max_bytes if total is None else total):
                    self.slot.discard()
                    most = self.max_bytes if total is None else total
                    raise Refused(f"{self.url} sends more than {most} bytes, what is allowed")
                digest.update(piece)
                with writing(self.slot.partial):
                    _write_all(file, piece)
                self.progress(done, total)
                self.stop.check()
        return done


def _write_all(file: FileIO, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[file.write(rest) :]


def _extent(response: HTTPResponse, url: str) -> tuple[int, int | None]:
    """Return where the answer begins in the file, and the file's bytes where that is known."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        seen = response.headers["Content-Encoding"]
        raise Refused(f"{url}: Content-Encoding is {seen!r:.40}; it must be identity")
    if response.status == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() and len(length) < 20 else None
    if response.status == 206:
        seen = response.headers.get("Content-Range", "")
        if match := _CONTENT_RANGE.fullmatch(seen):
            return int(match[1]), None if match[3] == "*" else int(match[3])
        raise Refused(f"{url}: Content-Range is {seen!r:.60}; it must be 'bytes first-last/all'")
    raise Refused(f"{url}: status is {response.status}; it must be 200, or 206 for a part")


def _validator(headers: HTTPMessage) -> str | None:
    tag = headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return tag
    return headers.get("Last-Modified")


def _judge(url: str, error: HTTPException | OSError, slot: Slot) -> Exception:
    if isinstance(error, HTTPError):
        with error:
            return _judge_status(url, error, slot)
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Refused(f"{url}: its certificate is not trusted ({cause.verify_message})")
    if isinstance(cause, TimeoutError):
        return Unavailable(f"{url} was silent for too long")
    return Unavailable(f"{url} does not answer ({cause or type(cause).__name__})")


def _judge_status(url: str, error: HTTPError, slot: Slot) -> Exception:
    if error.code == 416:
        slot.discard()
        return Unavailable(f"{url} has fewer bytes than came before; it is begun anew")
    message = f"{url}: status is {error.code} ({error.reason})"
    if error.code not in _TRANSIENT:
        return Refused(message)
    wait = (error.headers or Message()).get("Retry-After", "")
    return Overloaded(message, float(wait) if wait.isdecimal() and len(wait) < 6 else 0.0)


class SafeRedirect(HTTPRedirectHandler):
    """Follows to http(s) only, and never from https to http."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if not newurl.startswith(("https://", "http://" if req.type == "http" else "https://")):
            raise Refused(f"{req.full_url} redirects to {newurl!r:.80}, which is not as safe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> OpenerDirector:
    """Return an opener without the schemes file, ftp and data."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        HTTPHandler(),
        HTTPSHandler(),
        SafeRedirect(),
        HTTPDefaultErrorHandler(),
        HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
