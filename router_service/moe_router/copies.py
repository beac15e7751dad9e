"""Copies on disk of the last table and the last list of workers, for a start without API server.

Written whole or not at all; the first line says what the second one is, and its digest. Where that
is a table that names parts, they are the lines after it: each is known by the digest in its name.
A copy that is broken, or not of this mixture, is said and passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from moe_core.document import InvalidDocument
from moe_core.log import tell
from moe_core.parts import MissingPart, Part
from moe_router.said import Said


@dataclass(frozen=True, slots=True)
class KeptTable:
    """A table, and for how many seconds nobody has confirmed it."""

    said: Said
    age_s: float


class Copies:
    """The copies of one mixture in one directory. Times are seconds since the epoch of Unix.

    The time of the table's file is when it was confirmed last.
    """

    def __init__(self, directory: Path, namespace: str, mixture: str) -> None:
        self._of = {"namespace": namespace, "mixture": mixture}
        self._table = directory / f"{mixture}.table.json"
        self._workers = directory / f"{mixture}.workers.json"

    def save_table(self, said: Said, wall_s: float) -> bool:
        """Write the table; says whether. What cannot be written leaves no older one behind.

        A router that started by an older table would take back what it had served already.
        """
        parts = [part.text for part in said.parts]
        if self._save(self._table, "table", said.body, wall_s, parts):
            return True
        try:
            self._table.unlink(missing_ok=True)
        except OSError as error:
            tell("old_copy_stays", file=self._table, reason=error)
        return False

    def confirm_table(self, wall_s: float) -> None:
        """Take note that the table on disk is still the one that the source has."""
        try:
            os.utime(self._table, (wall_s, wall_s))
        except OSError as error:
            tell("copy_not_written", file=self._table, reason=error)

    def table(self, wall_s: float) -> KeptTable | None:
        body, *parts = self._load(self._table, "table") or (None,)
        if not isinstance(body, dict):
            return None
        try:
            said = Said.of(body, map(Part.from_data, parts))
            confirmed_s = self._table.stat().st_mtime
        except (OSError, InvalidDocument) as error:
            tell("copy_not_read", file=self._table, reason=error)
            return None
        except MissingPart as error:
            tell("copy_not_read", file=self._table, reason=f"its part {error} is not there")
            return None
        return KeptTable(said, max(0.0, wall_s - confirmed_s))

    def save_workers(self, addresses: Collection[str], wall_s: float) -> None:
        self._save(self._workers, "workers", sorted(addresses), wall_s)

    def workers(self) -> tuple[str, ...]:
        saved, *_ = self._load(self._workers, "workers") or (None,)
        if not isinstance(saved, list):
            return ()
        return tuple(address for address in saved if isinstance(address, str))

    def _save(
        self, path: Path, kind: str, content: object, wall_s: float, more: Collection[bytes] = ()
    ) -> bool:
        line = json.dumps(content).encode()
        head = {"kind": kind, **self._of, "sha256": hashlib.sha256(line).hexdigest()}
        lines = (json.dumps(head).encode(), line, *more)
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(b"\n".join((*lines, b"")))
            os.utime(part, (wall_s, wall_s))
            part.replace(path)
        except OSError as error:
            tell("copy_not_written", file=path, reason=error)
            return False
        return True

    def _load(self, path: Path, kind: str) -> list[object] | None:
        """Return what was saved, and then what belongs to it; None if it cannot be used."""
        try:
            return _checked(path.read_bytes(), {"kind": kind, **self._of})
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            tell("copy_not_read", file=path, reason=error)
            return None


def _checked(data: bytes, wanted: dict[str, str]) -> list[object]:
    """Return the content of a copy, by lines. Raises ValueError with what is wrong with it."""
    first, _, rest = data.partition(b"\n")
    line, *more = rest.removesuffix(b"\n").split(b"\n")
    head = json.loads(first)
    if not isinstance(head, dict):
        raise ValueError(
            f"it begins with {first[:80]!r}; it must be an object that says its digest"
        )
    for name, value in wanted.items():
        if head.get(name) != value:
            raise ValueError(f"its {name} is {head.get(name)!r:.80}; this router keeps {value!r}")
    seen = hashlib.sha256(line).hexdigest()
    if head.get("sha256") != seen:
        raise ValueError(f"its sha256 is {seen}; it was written with {head.get('sha256')!r:.80}")
    return [json.loads(one) for one in (line, *more)]
