"""Reads manifests for `lint`, and remembers on which line of which file each field is."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from kubectl_moe.names import UsageError

Field = tuple[str | int, ...]
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_ENDINGS: Final = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object of a file: its body, and the YAML node that it was read from."""

    source: str
    body: Any
    node: yaml.Node

    def line(self, field: Field = ()) -> int:
        """Return the line of a field, or of the nearest one around it that is there."""
        node, line = self.node, self.node.start_mark.line
        for step in field:
            found = _child(node, step)
            if found is None:
                break
            line, node = found
        return int(line) + 1


class Unreadable(ValueError):
    """A file is no YAML; the message says where."""

    def __init__(self, source: str, line: int, text: str) -> None:
        super().__init__(text)
        self.source, self.line = source, line


def sources(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Give names and texts of files, of a folder those in it. Raises UsageError."""
    for name in names:
        path = Path(name)
        try:
            if name == "-":
                yield "stdin", sys.stdin.read()
            elif path.is_dir():
                files = sorted(file for file in path.iterdir() if file.suffix in _ENDINGS)
                if not files:
                    raise UsageError(f"{name} has no file that ends in .yaml, .yml or .json")
                for file in files:
                    yield str(file), file.read_text()
            else:
                yield name, path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{name} cannot be read: {error}") from error


def read(source: str, text: str) -> Iterator[Manifest]:
    """Give the objects of a text, those of a List one by one. Raises Unreadable."""
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            yield from _objects(source, loader.construct_document(node), node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        raise Unreadable(source, mark.line + 1 if mark else 1, problem) from error
    finally:
        loader.dispose()


def repeated(node: yaml.Node, field: Field = ()) -> Iterator[Field]:
    """Give the fields that are written twice, of which YAML would take the last in silence."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                yield (*field, key.value)
            seen.add(key.value)
            yield from repeated(value, (*field, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from repeated(value, (*field, index))


def _objects(source: str, body: Any, node: yaml.Node) -> Iterator[Manifest]:
    if body is None:
        return
    items = body.get("items") if isinstance(body, dict) and body.get("kind") == "List" else None
    found = _child(node, "items") if isinstance(items, list) else None
    if items is None or found is None:
        yield Manifest(source, body, node)
        return
    for item, child in zip(items, found[1].value, strict=True):
        yield Manifest(source, item, child)


def _child(node: yaml.Node, step: str | int) -> tuple[int, yaml.Node] | None:
    """Return the line where a field begins, and its value."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return key.start_mark.line, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line, node.value[step]
    return None
