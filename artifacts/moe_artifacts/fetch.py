"""Brings an artifact here: a mounted file in place, a download into a cache, verified either way.

Whatever path it returns held the bytes of the digest a moment ago. It never looks inside them.
"""

from __future__ import annotations

import random
import re
import threading
from dataclasses import dataclass
from pathlib import Path

from moe_artifacts.artifact import sha256_of_file
from moe_artifacts.cache import Slot
from moe_artifacts.download import Attempt, Overloaded, Progress
from moe_artifacts.errors import Refused, Unavailable, WrongDigest
from moe_artifacts.location import parse_uri
from moe_artifacts.stop import Stop

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a download may be, and how patient to be with it.

    `attempts` counts tries in a row that brought nothing new; between them it waits `backoff_s`,
    doubled each time up to `max_backoff_s`. `stall_s` is the longest time without a byte, and so
    also how late a wish to cancel may be noticed.
    """

    max_bytes: int = 64 << 30
    attempts: int = 6
    stall_s: float = 10.0
    backoff_s: float = 0.2
    max_backoff_s: float = 5.0


def fetch(
    uri: str,
    sha256: str,
    cache: Path | None,
    *,
    limits: Limits | None = None,
    timeout_s: float | None = None,
    cancel: threading.Event | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return the path of a file that has this digest; `cache` is needed for http(s) only.

    `progress(bytes done, bytes in all or None)` is called from this thread.
    Raises Unavailable where it is worth trying again (also past `timeout_s`), Refused (and, below
    it, WrongDigest) where it is not, Cancelled when `cancel` was set.
    """
    if not _SHA256.fullmatch(sha256):
        raise Refused(f"sha256 is {sha256!r:.80}; it must be 64 lower-case hexadecimal digits")
    source = parse_uri(uri)
    stop = Stop.after(timeout_s, cancel)
    if isinstance(source, Path):
        _check_file(source, sha256, stop)
        return source
    if cache is None:
        raise Refused(f"{uri} needs a cache directory to be downloaded to, and there is none")
    slot, limits = Slot(cache, sha256), limits or Limits()
    attempt = Attempt(source, slot, limits.max_bytes, limits.stall_s, stop, progress or _nothing)
    try:
        with slot.locked(stop):
            return slot.final if _cached(slot, stop) else _download(attempt, limits)
    except OSError as error:
        raise Unavailable(f"the cache at {error.filename or cache}: {error.strerror}") from None


def _check_file(path: Path, sha256: str, stop: Stop) -> None:
    seen = sha256_of_file(path, stop.check)
    if seen != sha256:
        raise WrongDigest(f"{path}: sha256 is {seen}; {sha256} was asked for")


def _cached(slot: Slot, stop: Stop) -> bool:
    """Say whether it is there and right; what has rotted on disk is removed."""
    if not slot.final.exists():
        return False
    try:
        _check_file(slot.final, slot.sha256, stop)
    except WrongDigest:
        slot.final.unlink(missing_ok=True)
        return False
    return True


def _download(attempt: Attempt, limits: Limits) -> Path:
    """Try until it is here, or until `limits.attempts` in a row brought nothing new."""
    failures, most = 0, _bytes(attempt.slot)
    while True:
        attempt.stop.check()
        try:
            attempt.run()
            return attempt.slot.finish()
        except Unavailable as error:
            attempt.stop.check()
            have = _bytes(attempt.slot)
            failures, most = (0, have) if have > most else (failures + 1, most)
            if failures >= limits.attempts:
                raise
            attempt.stop.sleep(_pause(error, failures, limits))


def _pause(error: Unavailable, failures: int, limits: Limits) -> float:
    backoff = limits.backoff_s * float(2**failures)
    asked = error.retry_after_s if isinstance(error, Overloaded) else 0.0
    return min(max(backoff, asked), limits.max_backoff_s) * random.uniform(0.7, 1.0)


def _bytes(slot: Slot) -> int:
    return slot.partial.stat().st_size if slot.partial.exists() else 0


def _nothing(done: int, total: int | None) -> None:
    """Report to nobody."""
