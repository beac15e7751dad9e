"""Groups and contexts of a gate whose experts change: what follows, and what is refused."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_artifacts.errors import Refused
from moe_core.contexts import Context, Contexts
from moe_core.policy import Groups, Kind, Policy
from moe_tuning.succession import groups_of, succeed
from tests.support.policies import policies

IDS = tuple(f"e{number}" for number in range(8))


def grouped(count: int, chosen: int, top_k: int = 1) -> Policy:
    return Policy(top_k, Kind.GROUP_LIMITED_TOP_K, groups=Groups(count, chosen))


@pytest.mark.parametrize(
    ("policy", "gone", "groups"),
    [
        pytest.param(grouped(4, 2), "e0 e2 e4 e6", Groups(4, 2), id="one of each"),
        pytest.param(grouped(4, 2), "e2 e3", Groups(3, 2), id="a whole group"),
        pytest.param(grouped(4, 4), "e2 e3", Groups(3, 3), id="all groups were chosen"),
        pytest.param(grouped(4, 2), "e0 e1 e2 e4 e6", Groups(3, 2), id="a group, and one of each"),
        pytest.param(grouped(1, 1), "e5", Groups(1, 1), id="one group"),
        pytest.param(grouped(4, 2), "e0", "groups of 1, 2, 2, 2 experts", id="one"),
        pytest.param(grouped(2, 1), "e0 e1", r"as many \(2, 4, 6 in all\)", id="two of one"),
        pytest.param(
            grouped(2, 1, 3), "e0 e1 e4 e5", "4 experts would be left.*topK is 3", id="too few"
        ),
    ],
)
def test_groups_stay_of_equal_size(policy: Policy, gone: str, groups: Groups | str) -> None:
    heirs = {e: (e,) for e in IDS if e not in gone.split()}
    if isinstance(groups, Groups):
        assert succeed(policy, IDS, heirs).groups == groups
    else:
        with pytest.raises(Refused, match=groups):
            succeed(policy, IDS, heirs)


def test_one_more_has_no_group() -> None:
    heirs = {e: (e,) for e in IDS} | {"e8": ()}
    with pytest.raises(Refused, match=r"4 groups of 2 experts.*4 more at once would be right"):
        succeed(grouped(4, 2), IDS, heirs)


@given(policies(IDS), st.sets(st.sampled_from(IDS), max_size=7))
def test_what_follows_fits_and_experts_keep_their_groups(policy: Policy, gone: set[str]) -> None:
    left = [e for e in IDS if e not in gone]
    try:
        made = succeed(policy, IDS, {e: (e,) for e in left})
    except Refused:
        return
    made.check(left, "policy")
    wanted = [[e for e in group if e in left] for group in groups_of(policy, IDS)]
    assert [list(group) for group in groups_of(made, left)] == [g for g in wanted if g]


@pytest.mark.parametrize(
    ("shares", "bias"),
    [
        pytest.param({"e0": 1.0, "e1": 0.0}, "2", id="only the first is used"),
        pytest.param({"e0": 0.0, "e1": 1.0}, "0", id="only the second"),
        pytest.param({"e0": 0.5, "e1": 0.5}, "1.434", id="log of the mean of e^2 and e^0"),
    ],
)
def test_what_is_merged_has_a_bias_between_theirs(shares: dict[str, float], bias: str) -> None:
    legal = Context("legal", (("e0", Decimal(2)), ("e3", Decimal(1))))
    policy = Policy(1, contexts=Contexts(Decimal(3), (legal,)))
    heirs = {"one": ("e0", "e1"), "e2": ("e2",), "e3": ("e3",)}
    contexts = succeed(policy, IDS[:4], heirs, shares).contexts
    assert contexts is not None
    assert contexts.known[0].biases == (("one", Decimal(bias)), ("e3", Decimal(1)))


def test_contexts_without_an_expert_go() -> None:
    legal, code = (
        Context(name, ((e, Decimal(1)),)) for name, e in (("legal", "e0"), ("code", "e1"))
    )
    policy = Policy(1, contexts=Contexts(Decimal(3), (legal, code)))
    left = succeed(policy, IDS[:3], {"e1": ("e1",), "e2": ("e2",)}).contexts
    assert left is not None
    assert left.names == ("code",)
    assert succeed(policy, IDS[:3], {"e2": ("e2",)}).contexts is None
