"""Tables as they are read by who needs all of one: the parts of a head put in their place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from moe_core.parts import Part, whole

PART = "moeops.dev/part"


def whole_table(table: Mapping[str, Any], revisions: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a RoutingTable in one piece. Raises MissingPart."""
    if "parts" not in table["spec"]:
        return dict(table)
    parts = [Part.from_data(body["data"]) for body in filter(is_part, revisions)]
    return {**table, "spec": whole(table["spec"], {part.sha256: part for part in parts}.get)}


def is_part(revision: Mapping[str, Any]) -> bool:
    return PART in (revision["metadata"].get("labels") or {})
