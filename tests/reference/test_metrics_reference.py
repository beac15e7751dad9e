"""The reference of metrics is fresh, and what it describes is well named."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from moe_core.metrics import Family, Kind
from tests.reference.metrics import PAGE, PROGRAMS, page

EVERY = [pytest.param(f, id=f.name) for families in PROGRAMS.values() for f in families]
_UNITS = {"seconds", "bytes", "ratio"}
_SHARED = ("process_", "controller_runtime_", "workqueue_", "leader_election_")


def test_the_page_is_what_the_programs_describe() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.reference.metrics"


def test_no_two_programs_use_one_name() -> None:
    names = Counter(n for families in PROGRAMS.values() for f in families for n in f.names)

    assert [name for name, times in names.items() if times > 1] == []


@pytest.mark.parametrize("family", EVERY)
def test_a_name_is_plain_and_ends_in_its_unit(family: Family) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", family.name)
    assert family.name.startswith(("moeops_", *_SHARED))
    assert not family.unit or (family.unit in _UNITS and family.name.endswith(family.unit))
    assert family.kind is not Kind.HISTOGRAM or family.unit == "seconds"
    assert not re.search(r"_(total|info|count|sum|bucket)$", family.name)
    assert all(re.fullmatch(r"[a-z][a-z_]*", label) for label in family.labels)
    assert not {"le", "quantile", "namespace", "job", "instance"} & set(family.labels)


@pytest.mark.parametrize("family", EVERY)
def test_a_help_is_a_sentence_that_fits_a_table(family: Family) -> None:
    assert family.help.endswith(".")
    assert "|" not in family.help
    assert family.series
