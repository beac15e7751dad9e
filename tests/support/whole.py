"""Tables as they are read by who needs all of one: the parts of a head put in their place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from moe_core.parts import MissingPart, Part

PART = "moeops.dev/part"
_LISTS = ("gates", "experts")


def whole_table(table: Mapping[str, Any], revisions: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a RoutingTable in one piece. Raises MissingPart."""
    if "parts" not in table["spec"]:
        return dict(table)
    parts = [Part.from_data(body["data"]) for body in filter(is_part, revisions)]
    return {**table, "spec": whole(table["spec"], parts)}


def whole(head: Mapping[str, Any], stored: Iterable[Part]) -> dict[str, Any]:
    """Return a `spec` in one piece, rows sorted by name. Raises MissingPart."""
    known = {part.sha256: part.spec for part in stored}
    missing = [digest for digest in head["parts"] if digest not in known]
    if missing:
        raise MissingPart(*missing)
    named = [known[digest] for digest in head["parts"]]
    rest = {k: v for spec in named for k, v in spec.items() if k not in _LISTS}
    rows = {name: [row for spec in named for row in spec.get(name, ())] for name in _LISTS}
    rows["gates"].sort(key=lambda row: row["name"])
    rows["experts"].sort(key=lambda row: row["expertId"])
    return {**{k: v for k, v in head.items() if k != "parts"}, **rest, **rows}


def is_part(revision: Mapping[str, Any]) -> bool:
    return PART in (revision["metadata"].get("labels") or {})
