"""What a router keeps on disk, and when it begins, goes on and ends to serve by that."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_core.parts import head_of, split
from moe_router.copies import Copies, KeptTable
from moe_router.intake import CONFIRM_S, Intake
from moe_router.said import Said
from moe_router.tables import Source, Tables
from tests.fakes.worker import until
from tests.support import tables as made

OTHER = "another-life"


def told(epoch: int, *, uid: str = made.UID) -> Said:
    content = made.table([made.expert("e0")], [made.gate(["e0"], top_k=1)], epoch=epoch)
    return Said.of(made.to_object(replace(content, uid=uid)))


def told_in_parts(epoch: int) -> Said:
    spec = made.table([made.expert("e0"), made.expert("e1")], [made.gate(["e0", "e1"])]).to_spec()
    parts = split(spec | {"epoch": epoch}, ())
    return Said.of({**told(epoch).body, "spec": head_of(spec | {"epoch": epoch}, parts)}, parts)


def copies(directory: Path) -> Copies:
    return Copies(directory, "models", "tiny")


def test_copies_come_back_with_their_age(tmp_path: Path) -> None:
    kept = copies(tmp_path / "deep" / "cache")
    assert kept.table(0) is None
    assert kept.workers() == ()

    assert kept.save_table(told(3), wall_s=1000.0)
    kept.save_workers({"b:1", "a:1"}, wall_s=1000.0)

    assert kept.table(1060.0) == KeptTable(told(3), 60.0)
    assert kept.workers() == ("a:1", "b:1")
    kept.confirm_table(1050.0)
    assert kept.table(1060.0) == KeptTable(told(3), 10.0)
    assert kept.table(900.0) == KeptTable(told(3), 0.0), "a clock that was put back"


def torn(data: bytes) -> bytes:
    return data[:-8]


def flipped(data: bytes) -> bytes:
    return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]


BROKEN = (
    pytest.param(lambda data: b"", "Expecting value", id="empty"),
    pytest.param(torn, "sha256", id="cut in the middle"),
    pytest.param(flipped, "sha256", id="one bit"),
    pytest.param(lambda data: b"\x80\n", "codec", id="no text"),
    pytest.param(lambda data: b"[1]\n[]\n", "digest", id="something else"),
    pytest.param(
        lambda data: data.replace(b'"kind"', b'"sort"'), "kind is None", id="of another program"
    ),
    pytest.param(
        lambda data: data.replace(b'"models"', b'"others"'),
        "namespace is 'others'; this router keeps 'models'",
        id="of another namespace",
    ),
    pytest.param(
        lambda data: data.replace(b'"mixture": "tiny"', b'"mixture": "big"', 1),
        "mixture is 'big'; this router keeps 'tiny'",
        id="of another mixture",
    ),
)


@pytest.mark.parametrize(("damage", "said"), BROKEN)
def test_what_is_broken_or_foreign_is_said_and_passed_over(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
    said: str,
) -> None:
    caplog.set_level("INFO")
    kept = copies(tmp_path)
    kept.save_table(told(3), 0.0)
    kept.save_workers({"a:1"}, 0.0)
    for path in tmp_path.iterdir():
        path.write_bytes(damage(path.read_bytes()))

    assert kept.table(0.0) is None
    assert kept.workers() == ()
    reasons = [str(r.__dict__["fields"]["reason"]) for r in caplog.records]
    assert len(reasons) == 2
    assert all(said in reason for reason in reasons), reasons


def test_a_copy_of_a_table_in_parts_has_them_all(tmp_path: Path) -> None:
    kept, whole = copies(tmp_path), told_in_parts(3)
    assert whole.table is not None
    assert len(whole.parts) == 4
    assert kept.save_table(whole, 0.0)

    assert kept.table(0.0) == KeptTable(whole, 0.0)
    assert len((tmp_path / "tiny.table.json").read_bytes().splitlines()) == 2 + len(whole.parts)


@pytest.mark.parametrize("line", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(lambda line: b"", "is not there", id="lost"),
        pytest.param(lambda line: line.replace(b'"epoch":3', b'"epoch":2'), "is not", id="another"),
        pytest.param(lambda line: line[:-3] + b"\n", "Expecting", id="torn"),
        pytest.param(lambda line: b"[3]\n", "data is", id="something else"),
    ],
)
def test_a_part_that_is_lost_or_broken_leaves_no_table(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    line: int,
    damage: Callable[[bytes], bytes],
    reason: str,
) -> None:
    caplog.set_level("INFO")
    kept, path = copies(tmp_path), tmp_path / "tiny.table.json"
    kept.save_table(told_in_parts(3), 0.0)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = damage(lines[line])
    path.write_bytes(b"".join(lines))

    assert kept.table(0.0) is None
    (why,) = [r.__dict__["fields"]["reason"] for r in caplog.records]
    assert reason in str(why)


def test_what_cannot_be_written_leaves_no_older_table_behind(tmp_path: Path) -> None:
    kept = copies(tmp_path)
    kept.save_table(told(3), 0.0)
    (tmp_path / f"tiny.table.{os.getpid()}.part").mkdir()  # in the way of the next one

    assert not kept.save_table(told(4), 0.0)
    assert kept.table(0.0) is None


class Steps:
    """Tables that live and kept tables are given to, by a clock of the test's."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.tables = Tables("tiny", lambda: self.now_s)

    @property
    def served(self) -> tuple[str, int] | None:
        view = self.tables.view
        return None if view is None else (view.table.uid, view.table.epoch)


def test_a_kept_table_serves_and_its_age_goes_on_until_the_source_has_it() -> None:
    it = Steps()
    assert it.tables.restore(told(3), age_s=50.0)
    it.now_s += 10.0

    assert (it.served, it.tables.source) == ((made.UID, 3), Source.KEPT)
    assert it.tables.age_s == 60.0
    assert not it.tables.confirm(), "the source has said nothing yet"
    assert it.tables.age_s == 60.0

    assert not it.tables.offer(told(3)), "it is the same"
    assert (it.tables.source, it.tables.age_s) == (Source.LIVE, 0.0)


@pytest.mark.parametrize(
    ("live", "served", "source"),
    [
        pytest.param(told(4), (made.UID, 4), Source.LIVE, id="a later epoch"),
        pytest.param(told(2), (made.UID, 3), Source.KEPT, id="an earlier one, as from a backup"),
        pytest.param(told(1, uid=OTHER), (OTHER, 1), Source.LIVE, id="deleted and made again"),
        pytest.param(Said.of({"spec": None}), (made.UID, 3), Source.KEPT, id="unreadable"),
    ],
)
@pytest.mark.parametrize("kept_first", [True, False], ids=["after the copy", "before the copy"])
def test_what_is_served_of_a_copy_and_what_the_source_says(
    live: Said, served: tuple[str, int], source: Source, kept_first: bool
) -> None:
    it = Steps()
    if kept_first:
        it.tables.restore(told(3), 50.0)
    it.tables.offer(live)
    it.tables.restore(told(3), 50.0)
    it.tables.confirm()

    assert (it.served, it.tables.source) == (served, source)
    assert it.tables.age_s == (0.0 if source is Source.LIVE else 50.0)


def test_an_older_table_of_the_source_confirms_nothing() -> None:
    it = Steps()
    it.tables.offer(told(5))
    it.now_s += 60.0
    it.tables.offer(told(4))
    assert not it.tables.confirm()
    assert it.tables.age_s == 60.0

    it.tables.offer(told(6))
    assert it.served == (made.UID, 6)
    assert it.tables.age_s == 0.0


said = st.tuples(st.sampled_from(["live", "kept"]), st.integers(1, 4), st.sampled_from("ab"))


@given(st.lists(said, max_size=12))
def test_within_one_life_of_a_mixture_epochs_only_rise(history: list[tuple[str, int, str]]) -> None:
    it = Steps()
    before: tuple[str, int] | None = None
    for who, epoch, uid in history:
        if who == "live":
            it.tables.offer(told(epoch, uid=uid))
        else:
            it.tables.restore(told(epoch, uid=uid), 0.0)
        assert it.served is not None
        if before is not None and it.served[0] == before[0]:
            assert it.served[1] >= before[1]
        if who == "live":
            assert it.served[0] == uid, "the source says which life it is"
        elif before is not None:
            assert it.served[0] == before[0], "a copy brings no life back that is over"
        before = it.served


class Workers:
    """Whose links are settled when the test says so."""

    def __init__(self, *, settled: bool = True) -> None:
        self.settled = asyncio.Event()
        self.addresses: list[tuple[str, ...]] = []
        if settled:
            self.settled.set()

    def set_addresses(self, addresses: Collection[str]) -> None:
        self.addresses.append(tuple(sorted(addresses)))


class Started:
    """An intake over a folder, as a router has it that starts."""

    def __init__(self, directory: Path | None, *, settled: bool = True) -> None:
        self.now_s = 100.0
        self.tables = Tables("tiny", lambda: self.now_s)
        self.workers = Workers(settled=settled)
        kept = None if directory is None else copies(directory)
        self.copies = kept
        self.intake = Intake(
            self.tables, self.workers, kept, lambda: 1000.0 + self.now_s, lambda: self.now_s
        )

    @property
    def epoch(self) -> int:
        return self.tables.view.table.epoch if self.tables.view else 0


async def test_what_the_source_says_in_the_first_moment_goes_before_the_copy(
    tmp_path: Path,
) -> None:
    copies(tmp_path).save_table(told(3), 0.0)
    it = Started(tmp_path)
    it.intake.take_table(told(4))
    await it.intake.open()

    assert (it.epoch, it.tables.source) == (4, Source.LIVE)


async def test_where_the_source_is_silent_the_copy_serves_until_it_speaks(tmp_path: Path) -> None:
    before = Started(tmp_path)
    before.intake.take_workers({"a:1"})
    await before.intake.open()
    before.intake.take_table(told(3))

    it = Started(tmp_path)
    it.now_s += 40.0
    it.intake.restore_workers()
    await it.intake.open()
    assert (it.epoch, it.tables.source, it.tables.age_s) == (3, Source.KEPT, 40.0)
    assert it.workers.addresses == [("a:1",)]

    it.intake.take_table(told(4))
    assert (it.epoch, it.tables.source) == (4, Source.LIVE)
    again = Started(tmp_path)
    await again.intake.open()
    assert again.epoch == 4


async def test_a_copy_of_a_later_epoch_than_the_sources_serves_on(tmp_path: Path) -> None:
    copies(tmp_path).save_table(told(5), 0.0)
    it = Started(tmp_path)
    it.intake.take_table(told(4))
    await it.intake.open()
    assert (it.epoch, it.tables.source) == (5, Source.KEPT)

    it.intake.take_table(told(6))
    assert (it.epoch, it.tables.source) == (6, Source.LIVE)


async def test_nothing_is_served_before_it_is_known_who_is_there(tmp_path: Path) -> None:
    copies(tmp_path).save_table(told(3), 0.0)
    it = Started(tmp_path, settled=False)
    opening = asyncio.create_task(it.intake.open())
    it.intake.take_table(told(4))
    await asyncio.sleep(0)
    assert it.epoch == 0

    it.workers.settled.set()
    await until(lambda: it.epoch == 4, "the table")
    await opening


async def test_a_copy_learns_that_it_is_still_the_table(tmp_path: Path) -> None:
    it = Started(tmp_path)
    await it.intake.open()
    it.intake.take_table(told(3))
    it.now_s += 3 * CONFIRM_S
    it.intake.confirm()
    it.now_s += CONFIRM_S / 2
    it.intake.confirm()

    assert it.copies is not None
    kept = it.copies.table(1000.0 + it.now_s)
    assert kept is not None
    assert kept.age_s == CONFIRM_S / 2, "written from time to time, not each time"


async def test_a_copy_that_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    full = tmp_path / "cache"
    full.write_text("a file where the folder should be")
    it = Started(full)
    await it.intake.open()
    it.intake.take_table(told(3))
    assert it.epoch == 3
    full.unlink()
    it.now_s += CONFIRM_S
    it.intake.confirm()

    assert it.copies is not None
    kept = it.copies.table(0.0)
    assert kept is not None
    assert kept.said == told(3)


async def test_without_a_folder_nothing_is_kept() -> None:
    it = Started(None)
    it.intake.restore_workers()
    await it.intake.open()
    it.intake.take_table(told(3))
    it.intake.take_workers({"a:1"})
    it.intake.confirm()

    assert (it.epoch, it.workers.addresses) == (3, [("a:1",)])


def test_a_copy_can_be_looked_at_with_the_usual_tools(tmp_path: Path) -> None:
    copies(tmp_path).save_table(told(3), 0.0)
    head, content = map(json.loads, (tmp_path / "tiny.table.json").read_text().splitlines())
    assert {**head, "sha256": ""} == {
        "kind": "table",
        "namespace": "models",
        "mixture": "tiny",
        "sha256": "",
    }
    assert content == told(3).body
