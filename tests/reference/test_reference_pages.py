"""The pages of the reference are fresh, and nothing on them is without a description."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from tests.reference import commands, protocols, resources, settings
from tests.reference.markdown import prose, table
from tests.reference.pages import PAGES

NAMES = sorted(path.stem for path in (resources.ROOT / "crds").glob("*.yaml"))
PARSERS = [
    pytest.param(parser, id=parser.prog)
    for parser in (*settings.programs(), *commands.commands().values())
]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_what_the_code_says(path: Path) -> None:
    assert path.read_text() == PAGES[path](), "run: python -m tests.reference"


@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_a_resource_is_described_by_a_sentence(name: str) -> None:
    found = resources.fields(resources.definition(name))
    said = {field.path: field.schema.get("description", "") for field in found}

    assert said
    assert [path for path, text in said.items() if not text.endswith(".")] == []


@pytest.mark.parametrize("name", NAMES)
def test_no_word_of_a_schema_is_without_a_value(name: str) -> None:
    """In a YAML flow map `description: as above, of this` is a description and a key."""
    assert empty(resources.definition(name)) == []


def empty(node: object) -> list[str]:
    """Return the keys without a value."""
    if isinstance(node, dict):
        here = [str(key) for key, value in node.items() if value is None]
        return here + [key for value in node.values() for key in empty(value)]
    return [key for entry in node for key in empty(entry)] if isinstance(node, list) else []


def test_every_resource_is_on_its_page() -> None:
    kinds = {resources.definition(name)["spec"]["names"]["kind"] for name in NAMES}

    assert kinds == {line[3:] for line in resources.text().splitlines() if line[:3] == "## "}


def test_every_call_of_a_service_is_described() -> None:
    for file in protocols.described().file:
        said = protocols.comments(file)
        for i, service in enumerate(file.service):
            for j, method in enumerate(service.method):
                assert said.get((6, i, 2, j)), f"{service.name}.{method.name} has no comment"


def test_what_is_commented_in_the_protos_is_on_the_page() -> None:
    page = protocols.text()

    for file in protocols.described().file:
        for comment in protocols.comments(file).values():
            assert prose(comment.strip().splitlines()[0]) in page.replace("\\|", "|")


@pytest.mark.parametrize("parser", PARSERS)
def test_every_argument_says_what_it_is(parser: argparse.ArgumentParser) -> None:
    told = [action.help for action in parser._actions if action.help is not argparse.SUPPRESS]

    assert all(told)


def test_a_bar_does_not_end_a_cell() -> None:
    assert list(table(("a", "b"), [("x|y", "<z>")]))[-1] == "| x\\|y | <z> |"


def test_prose_shows_brackets_and_leaves_code_alone() -> None:
    assert prose("a <b>\n  and `list<c>`") == "a &lt;b> and `list<c>`"
