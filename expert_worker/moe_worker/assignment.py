"""What a worker is told to hold: a list of experts, read from JSON or from an AssignRequest.

Parsed once, here; everything behind it works on frozen `Assigned`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from moe_core.document import InvalidDocument, Reader
from moeops.v1.worker_pb2 import AssignedExpert

MAX_EXPERTS = 4096
_MAX_LAYER = 1023


@dataclass(frozen=True, slots=True)
class Assigned:
    """One expert to hold. `sha256` is its identity; no `layers` means all that it has."""

    expert_id: str
    version: str
    uri: str
    sha256: str
    layers: tuple[int, ...] = ()

    @classmethod
    def read(cls, reader: Reader) -> Self:
        layers = reader.integers("layers")
        wrong = [layer for layer in layers if not 0 <= layer <= _MAX_LAYER]
        if wrong or len(set(layers)) != len(layers):
            seen = f"{list(layers)!s:.60}"
            right = f"different numbers from 0 to {_MAX_LAYER}"
            raise InvalidDocument(f"{reader.path}.layers is {seen}; it must be {right}")
        expert_id = reader.text("expertId")
        if not expert_id:
            raise InvalidDocument(f"{reader.path}.expertId is empty; it must be the expert's id")
        return cls(
            expert_id=expert_id,
            version=reader.text("version", default=""),
            uri=reader.text("uri"),
            sha256=reader.sha256("sha256"),
            layers=tuple(sorted(layers)),
        )

    def to_proto(self) -> AssignedExpert:
        return AssignedExpert(
            expert_id=self.expert_id,
            version=self.version,
            uri=self.uri,
            sha256=self.sha256,
            layers=self.layers,
        )


Assignment = tuple[Assigned, ...]


def from_json(text: str) -> Assignment:
    """Read the list of `--assignment`. Raises InvalidDocument, which names the field."""
    try:
        items = json.loads(text)
    except ValueError as error:
        raise InvalidDocument(f"it is not JSON ({error})") from None
    if not isinstance(items, list):
        raise InvalidDocument(f"it is {text!r:.60}; it must be a list of objects")
    return _read(items)


def from_proto(experts: Iterable[AssignedExpert]) -> Assignment:
    """Read the list of an AssignRequest. Raises InvalidDocument, which names the field."""
    return _read(
        [
            {
                "expertId": expert.expert_id,
                "version": expert.version,
                "uri": expert.uri,
                "sha256": expert.sha256,
                "layers": list(expert.layers),
            }
            for expert in experts
        ]
    )


def _read(items: list[Any]) -> Assignment:
    if len(items) > MAX_EXPERTS:
        raise InvalidDocument(f"it has {len(items)} experts; at most {MAX_EXPERTS} are possible")
    experts = tuple(Assigned.read(Reader(item, f"[{i}]")) for i, item in enumerate(items))
    for (expert_id, sha256), times in Counter((e.expert_id, e.sha256) for e in experts).items():
        if times > 1:
            raise InvalidDocument(
                f"expertId {expert_id!r} with sha256 {sha256} is there {times} times; "
                "each pair must be there once"
            )
    return experts
