"""What was made is remembered until it is taken away, whatever becomes of the checkout."""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster import record
from cluster.places import Places
from cluster.record import Record


def places(tmp_path: Path, name: str = "checkout") -> Places:
    (tmp_path / name).mkdir(exist_ok=True)
    env = {"HOME": "/nowhere", "MOE_LOCAL_CACHE": str(tmp_path / "cache")}
    return Places.of(tmp_path / name, env)


def made(where: Places, *, finished: bool = True) -> Record:
    return Record(where.cluster, "image:1", "settings", 3, finished)


def test_nothing_was_made_in_a_fresh_checkout(tmp_path: Path) -> None:
    assert Record.read(places(tmp_path)) is None


def test_what_was_written_is_read(tmp_path: Path) -> None:
    where = places(tmp_path)
    made(where, finished=False).write(where)
    assert Record.read(where) == made(where, finished=False)
    made(where).write(where)
    assert Record.read(where) == made(where)


def test_a_record_that_cannot_be_read_is_of_something_unfinished(tmp_path: Path) -> None:
    where = places(tmp_path)
    made(where).write(where)
    for text in ("", "{", '{"cluster": "x"}', "[]"):
        where.record.write_text(text)
        seen = Record.read(where)
        assert seen is not None
        assert not seen.finished


def test_what_is_forgotten_is_gone(tmp_path: Path) -> None:
    where = places(tmp_path)
    made(where).write(where)
    record.forget(where)
    assert Record.read(where) is None
    record.forget(where)  # once more does no harm


def test_only_the_cluster_of_a_checkout_that_is_gone_is_an_orphan(tmp_path: Path) -> None:
    here, gone = places(tmp_path, "here"), places(tmp_path, "gone")
    for each in (here, gone):
        made(each).write(each)
    assert list(record.orphans(here.cache)) == []
    shutil.rmtree(gone.root)
    assert list(record.orphans(here.cache)) == [gone.cluster]
    assert list(record.orphans(here.cache)) == []  # it is told once
