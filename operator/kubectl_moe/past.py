"""What was before: revisions of an expert and epochs of a mixture, read from ControllerRevisions.

Pure: bodies in, data out. One that cannot be read is kept in the list with the sentence that says
why, and hinders nothing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import yaml

from moe_core.document import InvalidDocument, Reader
from moe_core.rollout import Version
from moe_core.rows import GateRow

Body = Mapping[str, Any]


class Unknown(ValueError):
    """There is no such revision or epoch, or it cannot be read; the message says what there is."""


@dataclass(frozen=True, slots=True)
class Past:
    """One revision of an expert. `outcome`, `at`, `why` and `by` are empty until it has ended."""

    revision: int
    created: str
    version: str = ""
    sha256: str = ""
    uri: str = ""
    template: Mapping[str, Any] = field(default_factory=dict)
    outcome: str = ""
    at: str = ""
    why: str = ""
    by: str = ""
    unreadable: str = ""

    @property
    def text(self) -> str:
        """What two revisions are compared by, as YAML."""
        version = {"version": self.version, "sha256": self.sha256, "uri": self.uri}
        return _yaml({**version, "template": dict(self.template)})


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch served: versions of experts and rows of gates, by the names of objects."""

    epoch: int
    created: str
    experts: Mapping[str, Version] = field(default_factory=dict)
    gates: Mapping[str, GateRow] = field(default_factory=dict)
    unreadable: str = ""

    def row(self, kind: str, name: str) -> Version | GateRow | None:
        """Return all that an Expert or a Gate was served with."""
        return self.experts.get(name) if kind == "Expert" else self.gates.get(name)

    def version(self, kind: str, name: str) -> Version | None:
        """Return the version of an Expert or a Gate."""
        row = self.row(kind, name)
        return row.stable if isinstance(row, GateRow) else row

    @property
    def text(self) -> str:
        """What two epochs are compared by, as YAML."""
        experts = {name: version.to_dict() for name, version in self.experts.items()}
        gates = {name: row.to_dict() for name, row in self.gates.items()}
        return _yaml({"experts": experts, "gates": gates})


def history(revisions: Sequence[Body], ended: Sequence[Mapping[str, Any]] = ()) -> tuple[Past, ...]:
    """Return what the ControllerRevisions of an expert say, in order of their number.

    `ended` is the status.history of the Expert: how their rollouts ended.
    """
    said = {entry["revision"]: entry for entry in ended}
    past = [_past(body, said.get(_number(body), {})) for body in revisions]
    return tuple(sorted(past, key=lambda each: each.revision))


def epochs(revisions: Sequence[Body]) -> tuple[Epoch, ...]:
    """Return what the ControllerRevisions of a mixture say, in order of their epoch."""
    return tuple(sorted(map(_epoch, revisions), key=lambda epoch: epoch.epoch))


def _past(body: Body, ended: Mapping[str, Any]) -> Past:
    number, created = _number(body), body["metadata"].get("creationTimestamp", "")
    said: dict[str, Any] = {
        name: str(ended.get(name, "")) for name in ("outcome", "at", "why", "by")
    }
    said["why"] = re.sub(r"^[A-Z]\w+: ", "", said["why"])  # the reason says what the outcome does
    try:
        data = Reader(body.get("data"), "data")
        version = Version.read(data.child("version"))
        template = data.child("template").value
    except InvalidDocument as error:
        return replace(Past(number, created, unreadable=str(error)), **said)
    read = Past(number, created, version.version, version.sha256, version.uri, template)
    return replace(read, **said)


def _epoch(body: Body) -> Epoch:
    number, created = _number(body), body["metadata"].get("creationTimestamp", "")
    try:
        data = Reader(body.get("data"), "data")
        experts = data.child("experts")
        versions = {name: Version.read(experts.child(name)) for name in sorted(experts.value)}
        rows = [GateRow.read(item) for item in data.items("gates")]
    except InvalidDocument as error:
        return Epoch(number, created, unreadable=str(error))
    return Epoch(number, created, versions, {row.name: row for row in rows})


def _number(body: Body) -> int:
    number = body.get("revision")
    if isinstance(number, int):
        return number
    found = re.search(r"\d+$", body["metadata"]["name"])
    return int(found[0]) if found else 0


P = TypeVar("P", Past, Epoch)


def readable(past: Sequence[P]) -> list[P]:
    return [each for each in past if not each.unreadable]


def find(past: Sequence[Past], text: str, name: str) -> Past:
    """Return the newest revision with that version's name, else the one with that number.

    Raises Unknown.
    """
    named = [p for p in readable(past) if p.version == text]
    numbered = [p for p in past if text == str(p.revision)]
    for found in reversed(named or numbered):
        if found.unreadable:
            raise Unknown(f"revision {text} of expert {name!r} is unreadable: {found.unreadable}")
        return found
    known = ", ".join(f"{p.revision} ({p.version or 'unreadable'})" for p in past) or "none"
    raise Unknown(f"expert {name!r} never had a version or revision {text!r}; it had {known}")


def find_epoch(past: Sequence[Epoch], text: str, name: str) -> Epoch:
    """Return the epoch with that number. Raises Unknown."""
    found = next((epoch for epoch in past if str(epoch.epoch) == text), None)
    if found is None:
        known = ", ".join(str(epoch.epoch) for epoch in past) or "none"
        raise Unknown(f"epoch {text} of mixture {name!r} is not kept; kept are {known}")
    if found.unreadable:
        raise Unknown(f"epoch {text} of mixture {name!r} is unreadable: {found.unreadable}")
    return found


def changes(before: Epoch | None, epoch: Epoch) -> Iterator[str]:
    """Give what an epoch changed of the one kept before it: `tiny-e3 v1 → v2`."""
    if before is None:
        counts = {"expert": len(epoch.experts), "gate": len(epoch.gates)}
        yield ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for what, n in counts.items())
        return
    old, new = _versions(before), _versions(epoch)
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield f"{name} {old[name].version} → -"
        elif name not in old:
            yield f"{name} - → {new[name].version}"
        elif old[name].version != new[name].version:
            yield f"{name} {old[name].version} → {new[name].version}"
        elif old[name] != new[name]:
            yield f"{name}: experts or policy"


def _versions(epoch: Epoch) -> dict[str, Version]:
    return {**epoch.experts, **{name: row.stable for name, row in epoch.gates.items()}}


def difference(one: tuple[str, str], other: tuple[str, str]) -> str:
    """Return a unified diff of two (title, text); empty where they are the same."""
    lines = difflib.unified_diff(
        one[1].splitlines(), other[1].splitlines(), one[0], other[0], lineterm=""
    )
    return "\n".join(lines)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=True, allow_unicode=True)
