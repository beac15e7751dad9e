"""A routing table that is too large for one object: a head, and immutable parts that it names.

A part holds some of the rows, always those whose names fall into its bucket, so that a change of
one row is a new part and a new head. It is named by the sha256 of its content, in which is the
epoch that it was made at: what a head once ceased to name, no later one names again. How a `spec`
is split and put together; where parts are kept, and when they go, others decide.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Any, Final, Self

from moe_core.document import InvalidDocument, Reader
from moe_core.rows import ExpertRow, GateRow
from moe_core.table import Table

# A table of more bytes of JSON is written in parts, until it has less than the second number.
LARGEST_BYTES: Final = 500_000
SMALLEST_BYTES: Final = 400_000

_BUCKETS: Final = 16
_REST: Final = _BUCKETS  # the bucket of what is no row
_ROWS: Final = ("gates", "experts")
_IN_HEAD: Final = ("mixture", "epoch")

Spec = Mapping[str, Any]


class MissingPart(Exception):
    """A part that a head names is not there, or is not seen yet; its argument is the sha256."""


@dataclass(frozen=True)
class Part:
    """Some fields of a table's `spec`, of the rows only those of one bucket."""

    bucket: int
    epoch: int
    spec: Spec

    @classmethod
    def from_data(cls, data: Any) -> Self:
        """Read what `to_data` gave. Raises InvalidDocument."""
        reader = Reader(data, "data")
        spec = reader.child("spec").value
        return cls(reader.integer("bucket", high=_REST), reader.integer("epoch"), spec)

    def to_data(self) -> dict[str, Any]:
        return {"bucket": self.bucket, "epoch": self.epoch, "spec": self.spec}

    @cached_property
    def text(self) -> bytes:
        """The content as JSON with sorted keys and without spaces."""
        return _json(self.to_data(), sort_keys=True)

    @cached_property
    def sha256(self) -> str:
        """The digest of the text."""
        return hashlib.sha256(self.text).hexdigest()

    @cached_property
    def gates(self) -> tuple[GateRow, ...]:
        """Its gates, read once for all tables that have it. Raises InvalidDocument."""
        return tuple(GateRow.read(item) for item in self._reader.items("gates"))

    @cached_property
    def experts(self) -> tuple[ExpertRow, ...]:
        """Its experts, read once for all tables that have it. Raises InvalidDocument."""
        return tuple(ExpertRow.read(item) for item in self._reader.items("experts"))

    @property
    def _reader(self) -> Reader:
        return Reader(self.spec, f"part-{self.sha256[:20]}.spec")


def part_name(mixture: str, sha256: str) -> str:
    """Return the name of the ControllerRevision that holds a part."""
    return f"{mixture}.part-{sha256[:20]}"


def named_by(spec: Spec) -> tuple[str, ...]:
    """Return the sha256 of the parts that a table's `spec` names; none where it is whole.

    Raises InvalidDocument.
    """
    if "parts" not in spec:
        return ()
    reader = Reader(spec, "spec")
    names = reader.texts("parts")
    for index, name in enumerate(names):
        Reader({f"parts[{index}]": name}, "spec").sha256(f"parts[{index}]")
    return names


def wants_parts(spec: Spec, *, split: bool, largest: int = LARGEST_BYTES) -> bool:
    """Return whether a whole `spec` is to be written in parts; `split` says that it is now.

    Between the two sizes it stays as it is.
    """
    size = len(_json(spec))
    return size > (largest * SMALLEST_BYTES // LARGEST_BYTES if split else largest)


def split(spec: Spec, stored: Iterable[Part]) -> tuple[Part, ...]:
    """Return the parts of a whole `spec`, in order of their buckets.

    Where one of the parts that the stored head names says the same, it is that one.
    """
    known = {part.bucket: part for part in stored}
    buckets: dict[int, dict[str, Any]] = {
        _REST: {k: v for k, v in spec.items() if k not in (*_ROWS, *_IN_HEAD)}
    }
    for field in _ROWS:
        for row in spec[field]:
            bucket = buckets.setdefault(_bucket(row["name"]), {name: [] for name in _ROWS})
            bucket[field].append(row)

    def made(bucket: int) -> Part:
        before = known.get(bucket)
        if before is not None and before.spec == buckets[bucket]:
            return before
        return Part(bucket, spec["epoch"], buckets[bucket])

    return tuple(map(made, sorted(buckets)))


def head_of(spec: Spec, parts: Iterable[Part]) -> dict[str, Any]:
    """Return the `spec` of the head: nothing in it is of use without the parts.

    So a router that knows none refuses it, and serves on with what it has.
    """
    return {**{name: spec[name] for name in _IN_HEAD}, "parts": [part.sha256 for part in parts]}


def table_of(body: Mapping[str, Any], find: Callable[[str], Part | None]) -> Table:
    """Return the table of a RoutingTable object, whose parts `find` gives by their sha256.

    Raises MissingPart and InvalidDocument.
    """
    spec = Reader(body.get("spec"), "spec").value
    parts = [_found(digest, find) for digest in named_by(spec)]
    if not parts:
        return Table.from_object(body)
    rest = {k: v for part in parts for k, v in part.spec.items() if k not in _ROWS}
    head = {k: v for k, v in spec.items() if k != "parts"}
    bare = Table.from_object({**body, "spec": {**head, **rest}})
    gates = sorted((row for part in parts for row in part.gates), key=attrgetter("name"))
    experts = sorted((row for part in parts for row in part.experts), key=attrgetter("expert_id"))
    return replace(bare, gates=tuple(gates), experts=tuple(experts))


def _found(digest: str, find: Callable[[str], Part | None]) -> Part:
    part = find(digest)
    if part is None:
        raise MissingPart(digest)
    if part.sha256 != digest:
        raise InvalidDocument(f"part {digest} has the content of {part.sha256}")
    return part


def _bucket(name: str) -> int:
    return hashlib.sha256(name.encode()).digest()[0] % _BUCKETS


def _json(value: Any, *, sort_keys: bool = False) -> bytes:
    return json.dumps(value, sort_keys=sort_keys, separators=(",", ":")).encode()
