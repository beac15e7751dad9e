"""The reference of custom resources, `docs/reference/resources.md`, made of `crds/`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.reference.markdown import MADE, code, page, prose, table

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "reference" / "resources.md"
_ORDER: Final = ("mixtures", "experts", "gates", "overrides", "routingtables")
_HEADERS: Final = ("field", "type", "default", "bounds", "what")
_HEAD: Final = f"""\
# Custom resources

{MADE}

All are of `moeops.dev/v1alpha1` and live in a namespace. `[]` is each entry of a list. *Refused* \
are sentences of the API server for what no single field's bounds can say. `kubectl explain \
expert.spec.rollout` says the same in a terminal."""

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a resource, at its path."""

    path: str
    schema: Schema
    required: bool
    same_as: str = ""  # the path whose fields it has, too: they are written once in crds/


def text() -> str:
    """Return the page as it is to be."""
    return page([_HEAD, *(line for name in _ORDER for line in _resource(definition(name)))])


def definition(plural: str) -> Schema:
    body: Schema = yaml.safe_load((ROOT / "crds" / f"{plural}.yaml").read_text())
    return body


def fields(crd: Schema) -> Iterator[Field]:
    """Give all fields of a resource, outermost first."""
    yield from _fields("", _root(crd), {})


def _root(crd: Schema) -> Schema:
    root: Schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return root


def _fields(path: str, schema: Schema, seen: dict[int, str]) -> Iterator[Field]:
    for name, child in schema.get("properties", {}).items():
        here = f"{path}.{name}".removeprefix(".")
        inner, within = child, here
        while "items" in inner:
            inner, within = inner["items"], f"{within}[]"
        # An alias in YAML is the same object here: such fields are told of once.
        shared = id(inner["properties"]) if "properties" in inner else 0
        yield Field(here, child, name in schema.get("required", ()), seen.get(shared, ""))
        if shared and shared not in seen:
            seen[shared] = within
            yield from _fields(within, inner, seen)


def _resource(crd: Schema) -> Iterator[str]:
    names, root = crd["spec"]["names"], _root(crd)
    yield from ("", f"## {names['kind']}")
    yield f"`kubectl get {names['shortNames'][0]}`. {prose(root['description'])}"
    found = list(fields(crd))
    for part in ("spec", "status"):
        rows = (_row(f) for f in found if f.path.startswith(f"{part}."))
        if lines := list(table(_HEADERS, rows)):
            yield from ("", f"### {names['kind']}: {part}", *lines)
    if refusals := list(_refusals("", root, set())):
        yield from ("", f"### {names['kind']}: refused", *refusals)


def _row(field: Field) -> tuple[str, ...]:
    schema = field.schema
    default = code(json.dumps(schema["default"])) if "default" in schema else ""
    same = f" Its fields are those of `{field.same_as}`." if field.same_as else ""
    return (
        code(field.path),
        _type(schema),
        "required" if field.required else default,
        _bounds(schema),
        prose(schema.get("description", "")) + same,
    )


def _type(schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    kind = str(schema["type"])
    if kind == "array":
        return f"list of {_type(schema['items'])}"
    if "additionalProperties" in schema:
        return f"map to {_type(schema['additionalProperties'])}"
    return "time" if schema.get("format") == "date-time" else kind


def _bounds(schema: Schema) -> str:
    inner = schema.get("items", schema.get("additionalProperties", {}))
    said = [*_own_bounds(schema)]
    said += [f"each {bound}" for bound in _own_bounds(inner) if "properties" not in inner]
    return "; ".join(said)


def _own_bounds(schema: Schema) -> Iterator[str]:
    if "enum" in schema:
        yield " or ".join(code(str(one)) for one in schema["enum"])
    yield from _range(schema, "minimum", "maximum", "")
    yield from _range(schema, "minItems", "maxItems", " entries")
    yield from _range(schema, "minProperties", "maxProperties", " entries")
    if "pattern" in schema:
        yield code(schema["pattern"])
    yield from _range(schema, "minLength", "maxLength", " characters")


def _range(schema: Schema, low: str, high: str, unit: str) -> Iterator[str]:
    match schema.get(low), schema.get(high):
        case None, None:
            return
        case None, most:
            yield f"at most {most}{unit}"
        case least, None:
            yield f"at least {least}{unit}"
        case least, most:
            yield f"{least} to {most}{unit}"


def _refusals(path: str, schema: Schema, seen: set[int]) -> Iterator[str]:
    if id(schema) in seen:
        return
    seen.add(id(schema))
    for rule in schema.get("x-kubernetes-validations", ()):
        where = code(f"{path}{rule.get('fieldPath', '')}".removeprefix("."))
        yield f"- {where}: {prose(rule['message'])}" if where else f"- {prose(rule['message'])}"
    for name, child in schema.get("properties", {}).items():
        yield from _refusals(f"{path}.{name}", child, seen)
    for key, mark in (("items", "[]"), ("additionalProperties", "")):
        if key in schema:
            yield from _refusals(f"{path}{mark}", schema[key], seen)
