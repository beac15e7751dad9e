"""Names of versions, and the index that remembers them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_artifacts.errors import BadCheckpoint
from moe_artifacts.index import Entry, Index, choose_version, load
from moe_core.document import Reader
from moe_core.rows import Role

OLD, NEW = "a" * 64, "b" * 64


def entry(version: str, sha256: str = OLD, file: str | None = "e0-aaaa.safetensors") -> Entry:
    uri = "file:///moe/artifacts/e0-aaaa.safetensors"
    return Entry("e0", Role.ROUTED, version, sha256, 9, uri, (0, 1), file)


INDEX = Index("tiny", 4, 2, "BFloat16", OLD, (entry("v1"), entry("v2", file=None)))


@pytest.mark.parametrize(
    ("wanted", "base", "there", "expected"),
    [
        pytest.param(None, None, None, "v1", id="the first"),
        pytest.param("blue", None, None, "blue", id="the first, by name"),
        pytest.param(None, entry("v1"), None, "v2", id="the next"),
        pytest.param(None, entry("v9"), None, "v10", id="the next has more digits"),
        pytest.param(None, entry("2026.07"), None, "2026.8", id="the last number counts"),
        pytest.param(None, entry("blue"), None, "blue-2", id="the next of a word"),
        pytest.param(None, entry("blue-2"), None, "blue-3", id="and the one after"),
        pytest.param("blue", entry("v1"), None, "blue", id="the next, by name"),
        pytest.param(None, None, entry("v7", NEW), "v7", id="as it is called there"),
        pytest.param("blue", None, entry("v7", NEW), "blue", id="called another way"),
        pytest.param(None, entry("v1"), entry("v2", NEW), "v2", id="run again"),
    ],
)
def test_a_version_gets_a_name(
    wanted: str | None, base: Entry | None, there: Entry | None, expected: str
) -> None:
    assert choose_version("e0", NEW, wanted, base, there) == expected


@pytest.mark.parametrize(
    ("wanted", "base", "there", "advice"),
    [
        pytest.param("v1", entry("v1"), None, "another --version$", id="the base's name"),
        pytest.param(None, None, entry("v1"), "or --base with", id="the name there"),
        pytest.param(None, entry("v1"), entry("v2"), "another --version$", id="taken meanwhile"),
    ],
)
def test_a_name_that_is_taken_is_refused(
    wanted: str | None, base: Entry | None, there: Entry | None, advice: str
) -> None:
    with pytest.raises(BadCheckpoint, match=f"e0 is bbbbbbbbbb now.*aaaaaaaaaa already.*{advice}"):
        choose_version("e0", NEW, wanted, base, there)


@given(st.from_regex(r"[a-z]{0,3}[0-9]{0,4}", fullmatch=True))
def test_names_never_come_back(version: str) -> None:
    seen = [version]
    for _ in range(20):
        seen.append(choose_version("e0", NEW, None, entry(seen[-1]), None))
    assert len(set(seen)) == len(seen)


def test_an_index_comes_back_from_its_text() -> None:
    assert Index.read(Reader(json.loads(INDEX.to_text()), "index.json")) == INDEX


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param({"format": 2}, "format is 2; this program reads 1", id="later format"),
        pytest.param({"mixture": 3}, "mixture is 3", id="mixture a number"),
        pytest.param({"trunkSha256": "abc"}, "trunkSha256 is 'abc'", id="no digest"),
        pytest.param({"artifacts": [{}]}, r"artifacts\[0\].\w+ is missing", id="empty entry"),
        pytest.param(
            {"artifacts": [entry("v1", file="../x").to_dict()]},
            "file is '../x'; it must be a file's name",
            id="a file elsewhere",
        ),
    ],
)
def test_a_bad_index_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    fields = json.loads(INDEX.to_text()) | changed
    (tmp_path / "index.json").write_text(json.dumps(fields))
    with pytest.raises(BadCheckpoint, match=message):
        load(tmp_path)


def test_no_index_is_none(tmp_path: Path) -> None:
    assert load(tmp_path) is None
