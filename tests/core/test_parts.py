"""A table in parts is the table again, and what did not change keeps its parts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_core.document import InvalidDocument
from moe_core.parts import MissingPart, Part, head_of, named_by, split, table_of, wants_parts
from moe_core.rollout import Outcome, Rollout, Version, WeightSince
from moe_core.table import Table
from tests.support.tables import expert, gate, table
from tests.support.whole import whole

URI = "https://artifacts.example.org/mixtures/large/experts/"
STABLE = Version("v1", "1" * 64, f"{URI}{'1' * 64}.safetensors")
NEXT = Version("v2", "2" * 64, f"{URI}{'2' * 64}.safetensors")
ETCD_BYTES = 1_500_000


def large(experts: int) -> Table:
    rows = [expert(f"layer-{n // 100:02}-e{n:04}", STABLE) for n in range(experts)]
    ids = [row.expert_id for row in rows]
    gates = [
        replace(gate(ids[n : n + 100]), name=f"gate-{n // 100:02}") for n in range(0, experts, 100)
    ]
    return table(rows, gates)


def stored(parts: Iterable[Part]) -> list[Part]:
    """Return what was written, as it is read as JSON."""
    return [Part.from_data(json.loads(json.dumps(part.to_data()))) for part in parts]


def finding(parts: Iterable[Part]) -> Callable[[str], Part | None]:
    return {part.sha256: part for part in parts}.get


def size(value: object) -> int:
    return len(json.dumps(value))


@settings(max_examples=25)
@given(st.sets(st.text("abc", min_size=1, max_size=3), max_size=20), st.integers(1, 9))
def test_a_table_in_parts_is_the_table_again(names: set[str], epoch: int) -> None:
    made = table([expert(name, STABLE) for name in sorted(names)], [gate(["a"])], epoch=epoch)
    spec = made.to_spec()
    parts = split(spec, ())
    meta, head = {"uid": made.uid}, head_of(spec, parts)
    assert table_of({"metadata": meta, "spec": head}, finding(stored(parts))) == made
    assert Table.from_object({"metadata": meta, "spec": whole(head, stored(parts))}) == made


def test_a_change_of_one_row_is_one_new_part() -> None:
    before = large(3000)
    parts = split(before.to_spec(), ())
    assert split({**before.to_spec(), "epoch": 2}, parts) == parts
    row = replace(before.experts[1234], candidate=NEXT)
    after = split({**before.with_expert(row).to_spec(), "epoch": 2}, parts)
    new = [part for part in after if part not in parts]
    assert [part.epoch for part in new] == [2]
    assert len(after) == len(parts) == 17


def test_rows_of_parts_that_stay_are_read_once() -> None:
    before = large(300)
    parts = stored(split(before.to_spec(), ()))
    row = replace(before.experts[123], candidate=NEXT)
    spec = {**before.with_expert(row).to_spec(), "epoch": 2}
    later = split(spec, parts)
    old = table_of({"spec": head_of(before.to_spec(), parts)}, finding(parts))
    new = table_of({"spec": head_of(spec, later)}, finding([*parts, *later]))
    same = [a is b for a, b in zip(old.experts, new.experts, strict=True)]
    (changed,) = [part for part in later if part not in parts]
    assert same.count(False) == len(changed.experts) < 40
    assert new.experts[123].candidate == NEXT


def test_content_that_comes_back_has_another_name() -> None:
    """So a part that no head names any more may go, whoever decides it on an old view."""
    spec = large(40).to_spec()
    first = split(spec, ())
    changed = split({**spec, "epoch": 2, "experts": spec["experts"][1:]}, first)
    back = split({**spec, "epoch": 3}, changed)
    (dropped,) = set(map(digest, first)) - set(map(digest, changed))
    assert dropped not in set(map(digest, back))
    assert whole(head_of({**spec, "epoch": 3}, back), stored(back)) == {**spec, "epoch": 3}


def digest(part: Part) -> str:
    return part.sha256


def test_three_thousand_experts_fit_in_every_object() -> None:
    """All of them in a rollout at once, with long reasons."""
    weights = tuple(WeightSince(n, 5 * n) for n in range(10))
    rollout = Rollout(
        7, NEXT, 3, "2026-01-01T00:00:00Z", Outcome.PROGRESSING, "why " * 100, "salt", weights
    )
    made = large(3000)
    rows = [replace(row, candidate=NEXT, previous=STABLE, rollout=rollout) for row in made.experts]
    spec = replace(made, experts=tuple(rows)).to_spec()
    parts = split(spec, ())
    assert size(spec) > 2 * ETCD_BYTES
    assert max(size(part.to_data()) for part in parts) < ETCD_BYTES / 2
    assert size(head_of(spec, parts)) < 2000


def test_between_the_two_sizes_a_table_stays_as_it_is() -> None:
    sizes = {False: [], True: []}  # type: dict[bool, list[int]]
    for experts in range(500, 3001, 100):
        spec = large(experts).to_spec()
        for now in sizes:
            if wants_parts(spec, split=now):
                sizes[now].append(len(json.dumps(spec, separators=(",", ":"))))
    assert 400_000 < min(sizes[True]) < 500_000 < min(sizes[False])


def test_a_table_in_one_piece_is_as_it_was() -> None:
    made = large(3)
    spec = made.to_spec()
    assert named_by(spec) == ()
    assert table_of({"metadata": {"uid": made.uid}, "spec": spec}, lambda _: None) == made
    assert not wants_parts(spec, split=False)


def test_what_is_missing_or_altered_is_no_table() -> None:
    spec = large(40).to_spec()
    parts = split(spec, ())
    body, known = {"spec": head_of(spec, parts)}, {part.sha256: part for part in parts}
    some = parts[3].sha256
    with pytest.raises(MissingPart, match=some):
        table_of(body, {name: part for name, part in known.items() if name != some}.get)
    with pytest.raises(InvalidDocument, match=f"part {some} has the content of"):
        table_of(body, {**known, some: replace(parts[3], epoch=9)}.get)


def test_a_row_of_a_part_that_cannot_be_read_is_told_by_the_part_and_the_row() -> None:
    """The part is one that is named: so it is what it was written as, and wrong from there."""
    spec = large(3).to_spec()
    spec["experts"][1] = {**spec["experts"][1], "layers": [-1, "all"]}
    parts = split(spec, ())
    with pytest.raises(InvalidDocument) as caught:
        table_of({"spec": head_of(spec, parts)}, finding(parts))
    (of,) = [part for part in parts if spec["experts"][1] in part.spec.get("experts", ())]
    where = f"part-{of.sha256[:20]}.spec.experts["
    assert str(caught.value).startswith(where)
    assert "layers[1] is 'all'; it must be a whole number" in str(caught.value)


@pytest.mark.parametrize("spec", [None, [], "head"])
def test_what_is_no_object_is_no_table(spec: Any) -> None:
    with pytest.raises(InvalidDocument, match=r"spec is .* it must be an object"):
        table_of({"spec": spec}, lambda _: None)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        pytest.param("all", r"spec\.parts is 'all'; it must be a list", id="no list"),
        pytest.param([3], r"spec\.parts\[0\] is 3; it must be text", id="a number"),
        pytest.param(["e3"], r"spec\.parts\[0\] is 'e3'; it must be 64", id="no digest"),
    ],
)
def test_a_head_that_names_no_parts_is_refused(named: Any, said: str) -> None:
    with pytest.raises(InvalidDocument, match=said):
        named_by({"parts": named})


def test_a_head_alone_is_no_table() -> None:
    """Nor was it to a router that knew of no parts: what it needs first is not there."""
    head = head_of(large(3).to_spec(), ())
    with pytest.raises(InvalidDocument, match=r"spec\.parts names parts"):
        Table.from_object({"spec": head})
    with pytest.raises(InvalidDocument, match=r"spec\.hiddenSize is missing"):
        Table.from_object({"spec": {k: v for k, v in head.items() if k != "parts"}})
