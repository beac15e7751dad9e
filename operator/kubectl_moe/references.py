"""Checks what objects of moeops say of each other, within what was given: pure.

What is not among them may be in the cluster, so that a name nobody has is a warning only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubectl_moe.schema import Field

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Objection:
    """What is wrong with the object of that index, where, and whether it surely is."""

    index: int
    field: Field
    text: str
    surely: bool = True


def check(bodies: Sequence[Body]) -> Iterator[Objection]:
    """Give all objections; the bodies fit their schemas."""
    yield from _twice(bodies)
    yield from _mixtures(bodies)
    yield from _claims(bodies)
    for index, body in enumerate(bodies):
        if body["kind"] == "Gate":
            yield from _gate(index, body, bodies)
        elif body["kind"] == "Expert":
            yield from _backup(index, body, bodies)


def _twice(bodies: Sequence[Body]) -> Iterator[Objection]:
    seen: set[tuple[str, str, str]] = set()
    for index, body in enumerate(bodies):
        name = body["metadata"].get("name", "")
        key = (body["kind"], _namespace(body), name)
        if name and key in seen:
            yield Objection(index, ("metadata", "name"), f"is {name!r}, which is there twice")
        seen.add(key)


def _mixtures(bodies: Sequence[Body]) -> Iterator[Objection]:
    """Object to mixtures that are not there, and to layers that a mixture does not have."""
    there = {_key(body): body for body in bodies if body["kind"] == "Mixture"}
    for index, body in enumerate(bodies):
        if body["kind"] not in ("Expert", "Gate"):
            continue
        mixture = there.get(_mixture(body))
        if mixture is None:
            if there:
                text = f"is {_mixture(body)[1]!r}, of which no Mixture is among these"
                yield Objection(index, ("spec", "mixtureRef", "name"), text, surely=False)
            continue
        layers = mixture["spec"]["layers"]
        for place, layer in enumerate(body["spec"].get("layers", ())):
            if layer >= layers:
                text = f"is {layer}; the Mixture has {layers} layers, counted from 0"
                yield Objection(index, ("spec", "layers", place), text)


def _claims(bodies: Sequence[Body]) -> Iterator[Objection]:
    """Object where two claim one layer: of one expert id, or for a gate."""
    claimed: dict[tuple[Any, ...], str] = {}
    for index, body in enumerate(bodies):
        if body["kind"] not in ("Expert", "Gate"):
            continue
        spec, name = body["spec"], body["metadata"].get("name", "")
        what = ("gate",) if body["kind"] == "Gate" else ("expert", spec["expertId"])
        layers = spec.get("layers") or _all_layers(body, bodies)
        for layer in layers:
            key = (_mixture(body), what, layer)
            other = claimed.setdefault(key, name)
            if other != name:
                of = "" if body["kind"] == "Gate" else f" of {spec['expertId']}"
                text = f"has layer {layer}{of}, which {other} has too: the older one would count"
                yield Objection(index, ("spec", "layers"), text)
                break


def _gate(index: int, gate: Body, bodies: Sequence[Body]) -> Iterator[Objection]:
    """Object to experts that are not there, or that do not fit."""
    listed, top_k = gate["spec"]["experts"], gate["spec"]["policy"]["topK"]
    if top_k > len(listed):
        text = f"is {top_k}, more than the {len(listed)} experts"
        yield Objection(index, ("spec", "policy", "topK"), text)
    experts = _experts(gate, bodies)
    for place, entry in enumerate(listed if experts else ()):
        mine = experts.get(entry["id"], [])
        field = ("spec", "experts", place, "id")
        if not mine:
            text = f"is {entry['id']!r}, of which no Expert is among these"
            yield Objection(index, field, text, surely=False)
            continue
        layers = set(gate["spec"].get("layers") or _all_layers(gate, bodies))
        served = {layer for expert in mine for layer in expert["spec"]["layers"]}
        if missing := sorted(layers - served):
            text = f"is {entry['id']!r}, which serves no layer {missing[0]} of this gate"
            yield Objection(index, field, text, surely=False)
        for expert in mine:
            version = expert["spec"]["version"]
            if version not in entry.get("versions", [version]):
                text = f"do not have {version!r} of {expert['metadata'].get('name')}: it is Held"
                where = ("spec", "experts", place, "versions")
                yield Objection(index, where, text, surely=False)


def _backup(index: int, expert: Body, bodies: Sequence[Body]) -> Iterator[Objection]:
    backup = expert["spec"].get("backupExpertId")
    others = _experts(expert, bodies)
    if backup is not None and len(others) > 1 and backup not in others:
        text = f"is {backup!r}, of which no Expert is among these"
        yield Objection(index, ("spec", "backupExpertId"), text, surely=False)


def _experts(body: Body, bodies: Sequence[Body]) -> dict[str, list[Body]]:
    """Return the Experts of the same mixture, by their ids."""
    found: dict[str, list[Body]] = {}
    for other in bodies:
        if other["kind"] == "Expert" and _mixture(other) == _mixture(body):
            found.setdefault(other["spec"]["expertId"], []).append(other)
    return found


def _all_layers(body: Body, bodies: Sequence[Body]) -> range:
    """Return the layers of its mixture; none where that is not among these."""
    for other in bodies:
        if other["kind"] == "Mixture" and _key(other) == _mixture(body):
            return range(other["spec"]["layers"])
    return range(0)


def _mixture(body: Body) -> tuple[str, str]:
    return _namespace(body), body["spec"]["mixtureRef"]["name"]


def _key(body: Body) -> tuple[str, str]:
    return _namespace(body), body["metadata"].get("name", "")


def _namespace(body: Body) -> str:
    return str(body["metadata"].get("namespace") or "")
