"""What the pages say can be done: links lead somewhere, commands parse, manifests are accepted."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from _pytest.mark import ParameterSet
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from kubectl_moe.arguments import parser as kubectl_moe
from tests.docs.pages import ROOT, Block, anchors, blocks, links, typed
from tests.reference.commands import arguments, commands

PAGES = sorted(
    path
    for folder in (".", "docs", "docs/how-to", "docs/runbooks", "charts/moeops", "examples/tiny")
    for path in (ROOT / folder).glob("*.md")
)
IN_PAGES = [pytest.param(path, id=str(path.relative_to(ROOT))) for path in PAGES]
API = "moeops.dev/v1alpha1"


def commands_of(program: str) -> list[ParameterSet]:
    """Return what is typed for a program on any page."""
    return [
        pytest.param(_words(line)[len(program.split()) :], id=f"{_place(path, block)}: {line}")
        for path in PAGES
        for block in blocks(path.read_text())
        for line in typed(block)
        if line.startswith(f"{program} ")
    ]


def _words(line: str) -> list[str]:
    words = shlex.split(line)
    return words[: words.index(">")] if ">" in words else words


def manifests() -> list[ParameterSet]:
    """Return the objects of ours on any page."""
    return [
        pytest.param(body, id=_place(path, block))
        for path in PAGES
        for block in blocks(path.read_text())
        for body in _objects(block)
    ]


def _place(path: Path, block: Block) -> str:
    return f"{path.relative_to(ROOT)}:{block.line}"


def _objects(block: Block) -> Iterator[dict[str, object]]:
    if block.language == "yaml":
        yield from (
            body for body in yaml.safe_load_all(block.text) if body.get("apiVersion") == API
        )


@pytest.mark.parametrize("path", IN_PAGES)
def test_links_lead_somewhere(path: Path) -> None:
    for link in links(path.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


@pytest.mark.parametrize("words", commands_of("kubectl moe"))
def test_a_command_of_the_plugin_is_one(words: list[str]) -> None:
    assert kubectl_moe().parse_args(words).verb == words[0]


@pytest.mark.parametrize("words", commands_of("moe"))
def test_a_command_of_moe_is_one(words: list[str]) -> None:
    known = commands()
    assert words[0] in known
    flags = {flag for action in arguments(known[words[0]]) for flag in action.option_strings}
    needed = {action.dest for action in required(known[words[0]])}

    given = {word for word in words if word.startswith("-")}
    assert given <= flags
    assert {f"--{name}" for name in needed} <= given


def required(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [a for a in arguments(parser) if a.required and a.option_strings]


@pytest.mark.parametrize("words", commands_of("make"))
def test_a_target_of_make_is_one(words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert words[0] in targets


@pytest.mark.parametrize("words", commands_of("helm upgrade"))
def test_a_value_of_the_chart_is_one(words: list[str]) -> None:
    values = yaml.safe_load((ROOT / "charts" / "moeops" / "values.yaml").read_text())
    for flag, given in pairwise(words):
        for part in given.split(",") if flag == "--set" else ():
            found: object = values
            for name in part.partition("=")[0].split("."):
                assert isinstance(found, dict), part
                assert name in found or found == {}, part
                found = found.get(name, {})


@pytest.mark.parametrize("words", [*commands_of("kubectl apply"), *commands_of("kubectl patch")])
def test_a_file_of_this_repository_is_there(words: list[str]) -> None:
    for word in words:
        if re.match(r"(examples|deploy|crds|charts)/", word):
            assert (ROOT / word).exists(), word


@pytest.mark.parametrize("body", manifests())
def test_a_manifest_is_accepted_by_an_api_server(
    body: dict[str, Any], kube: client.ApiClient, namespace: str
) -> None:
    group, version = API.split("/")
    plural = f"{str(body['kind']).lower()}s"
    objects = client.CustomObjectsApi(kube)
    try:
        objects.create_namespaced_custom_object(
            group,
            version,
            namespace,
            plural,
            body,
            dry_run="All",
            field_validation="Strict",
        )
    except ApiException as error:
        pytest.fail(str(error.body))


def test_there_is_something_to_look_at() -> None:
    assert manifests()
    assert all(commands_of(program) for program in ("kubectl moe", "moe", "make", "helm upgrade"))


def test_a_block_that_is_not_closed_is_found() -> None:
    with pytest.raises(ValueError, match="line 2"):
        list(blocks("a\n```\nb\n"))


def test_links_in_blocks_are_none() -> None:
    assert links("[a](b.md)\n```\n[c](d.md)\n```\n") == ["b.md"]


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        pytest.param("# How to", "how-to", id="words"),
        pytest.param(
            "## The failover ladder: bits, out", "the-failover-ladder-bits-out", id="signs"
        ),
        pytest.param("### Operator: `python -m x_y`", "operator-python--m-x_y", id="code"),
    ],
)
def test_an_anchor_is_made_as_github_makes_it(heading: str, anchor: str) -> None:
    assert anchors(heading) == {anchor}
