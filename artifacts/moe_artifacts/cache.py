"""A directory of downloads that several processes share: one place per digest, one writer each.

`<digest>.safetensors` is whole and was verified; it appears by an atomic rename. What has come so
far of an unfinished download is `<digest>.partial`, and `<digest>.validator` holds the server's
ETag for it. `<digest>.lock` is locked by whoever downloads; the lock dies with its process.
Nothing is ever removed to make room: that is for the owner of the volume.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from moe_artifacts.errors import Refused, Unavailable
from moe_artifacts.stop import Stop

_LOCK_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one digest in a cache directory."""

    directory: Path
    sha256: str

    @property
    def final(self) -> Path:
        return self.directory / f"{self.sha256}.safetensors"

    @property
    def partial(self) -> Path:
        return self.directory / f"{self.sha256}.partial"

    @property
    def _validator(self) -> Path:
        return self.directory / f"{self.sha256}.validator"

    @contextmanager
    def locked(self, stop: Stop) -> Iterator[None]:
        """Be the only one at work here; wait for another. Raises Refused, or as `stop` does."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            lock = (self.directory / f"{self.sha256}.lock").open("ab")
        except OSError as error:
            reason = error.strerror
            raise Refused(f"cache {self.directory} cannot be written to: {reason}") from None
        with lock:
            while not _try_lock(lock.fileno()):
                stop.sleep(_LOCK_POLL_S)
            yield

    def validator(self) -> str | None:
        """Return what proves to the server that it still has what `partial` is a part of."""
        try:
            return self._validator.read_text() or None
        except FileNotFoundError:
            return None

    def begin(self, validator: str | None) -> None:
        """Forget what came before; the server's new answer begins."""
        with writing(self.partial):
            self.partial.write_bytes(b"")
            self._validator.write_text(validator or "")

    def discard(self) -> None:
        """Remove what has come so far."""
        self.partial.unlink(missing_ok=True)
        self._validator.unlink(missing_ok=True)

    def finish(self) -> Path:
        """Make the verified `partial` the final file, so that a power cut leaves one or none."""
        with writing(self.final):
            with self.partial.open("rb") as file:
                os.fsync(file.fileno())
            self.partial.replace(self.final)
            self._validator.unlink(missing_ok=True)
        return self.final


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write `path` into Unavailable: room may be made."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{path} cannot be written ({error.strerror}); make room") from None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
