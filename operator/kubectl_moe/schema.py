"""Checks a value against a schema as custom resource definitions have them: pure.

It knows what structural schemas of Kubernetes may say, but not the rules in CEL, which only the
API server evaluates.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Schema = Mapping[str, Any]
Field = tuple[str | int, ...]
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
_RANGES: Final = {"int32": 31, "int64": 63}
_BOUNDS: Final = {"string": "Length", "array": "Items", "object": "Properties"}
_UNITS: Final = {"string": "characters", "array": "items", "object": "fields"}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a field, in words that follow its name."""

    field: Field
    text: str


def dotted(field: Field) -> str:
    """Return a field as people write it: spec.experts[2].id."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in field)
    return "".join(steps).removeprefix(".")


def check(value: Any, schema: Schema, field: Field = ()) -> Iterator[Fault]:
    """Give all that is wrong."""
    if value is None:
        if not schema.get("nullable"):
            yield Fault(field, "is empty; leave it out, or give it a value")
        return
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            yield Fault(field, f"is {_told(value)}; it must be a whole number or a string")
        return
    kind = schema.get("type", "")
    if kind and not _is(value, kind):
        yield Fault(field, f"is {_told(value)}; it must be {_article(kind)}")
        return
    if "enum" in schema and value not in schema["enum"]:
        choices = ", ".join(map(str, schema["enum"]))
        yield Fault(field, f"is {_told(value)}; it must be one of {choices}")
    yield from _bounds(value, schema, kind, field)
    if kind == "object":
        yield from _object(value, schema, field)
    elif kind == "array":
        yield from _array(value, schema, field)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _bounds(value: Any, schema: Schema, kind: str, field: Field) -> Iterator[Fault]:
    if kind in ("integer", "number"):
        bits = _RANGES.get(schema.get("format", ""))
        low = schema.get("minimum", -(2**bits) if bits else None)
        high = schema.get("maximum", 2**bits - 1 if bits else None)
        if low is not None and value < low:
            yield Fault(field, f"is {value}; it must be {low} or more")
        if high is not None and value > high:
            yield Fault(field, f"is {value}; it must be {high} or less")
        return
    what = _BOUNDS.get(kind)
    if what is None:
        return
    unit, size = _UNITS[kind], len(value)
    if size < schema.get(f"min{what}", 0):
        yield Fault(field, f"has {size} {unit}; it must have {schema[f'min{what}']} or more")
    if size > schema.get(f"max{what}", size):
        yield Fault(field, f"has {size} {unit}; it must have {schema[f'max{what}']} or fewer")
    pattern = schema.get("pattern")
    if kind == "string" and pattern and not re.search(pattern, value):
        yield Fault(field, f"is {_told(value)}; it must match {pattern}")


def _object(value: Mapping[str, Any], schema: Schema, field: Field) -> Iterator[Fault]:
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield Fault((*field, name), "is missing")
    rest = schema.get("additionalProperties")
    for name, child in value.items():
        if name in known:
            yield from check(child, known[name], (*field, name))
        elif isinstance(rest, dict):
            yield from check(child, rest, (*field, name))
        elif not rest and not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield Fault((*field, name), _unknown(str(name), known))


def _array(value: Sequence[Any], schema: Schema, field: Field) -> Iterator[Fault]:
    seen: list[Any] = []
    keys = schema.get("x-kubernetes-list-map-keys", ())
    unique = schema.get("x-kubernetes-list-type") in ("set", "map")
    for index, item in enumerate(value):
        faults = list(check(item, schema.get("items", {}), (*field, index)))
        yield from faults
        if unique and not faults:
            mark = tuple(item.get(key) for key in keys) if keys else item
            if mark in seen:
                text = ", ".join(map(str, mark)) if keys else str(mark)
                yield Fault((*field, index), f"is {text}, which is there twice")
            seen.append(mark)


def _unknown(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"is no field; did you mean {near[0]}?"
    return f"is no field; there are {', '.join(sorted(known)) or 'none'}"


def _told(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else type(value).__name__
    text = str(value).lower() if isinstance(value, bool) else text
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else text
    names = {"dict": "an object", "list": "a list"}
    return names.get(text, text if len(text) <= 80 else f"{text[:79]}…")


def _article(kind: str) -> str:
    named = {"integer": "a whole number", "array": "a list", "boolean": "true or false"}
    return named.get(kind, f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}")
