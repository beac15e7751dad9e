"""A policy's one JSON form: what comes back, what older documents mean, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_core.document import InvalidDocument, Reader
from moe_core.policy import Capacity, Kind, Overflow, Policy, Weights, read_beside
from moe_core.rows import GateVariant
from tests.support.policies import policies

EXPERTS = ("e0", "e1", "e2", "e3")
LIMITED = {"type": "GroupLimitedTopK", "topK": 2, "groups": {"count": 2, "chosen": 1}}


def read(content: Any) -> Policy:
    return Policy.read(Reader(content, "policy"))


@given(policies(EXPERTS))
def test_a_policy_comes_back_from_its_json(policy: Policy) -> None:
    text = json.dumps(policy.to_dict())
    assert read(json.loads(text)) == policy
    policy.check(EXPERTS, "policy")


@given(policies(EXPERTS))
def test_a_variant_of_the_table_comes_back(policy: Policy) -> None:
    variant = GateVariant("v1", "0" * 64, "file:///g", EXPERTS, policy)
    assert GateVariant.read(Reader(json.loads(json.dumps(variant.to_dict())), "v")) == variant


def test_what_is_older_than_policies_is_mixtrals_and_is_still_written_so() -> None:
    assert read_beside(Reader({"topK": 2}, "v")) == Policy(2)
    assert read_beside(Reader({"topK": 2, "policy": "TopK"}, "v")) == Policy(2)
    written = GateVariant("v1", "0" * 64, "file:///g", EXPERTS, Policy(2)).to_dict()
    assert written["topK"] == 2
    assert "policy" not in written


@given(st.sampled_from(["2.5", "2.50", "2.500000"]))
def test_equal_numbers_are_equal_policies_with_one_text(text: str) -> None:
    policy = read({**LIMITED, "routedScaling": text})
    assert policy == read({**LIMITED, "routedScaling": "2.5"})
    assert policy.to_dict()["routedScaling"] == "2.5"


def test_a_capacity_without_a_number_is_1_2_and_without_a_way_is_the_residual() -> None:
    only_way = read({"type": "TopK", "topK": 2, "overflow": "NextBest"})
    assert only_way.capacity == Capacity(overflow=Overflow.NEXT_BEST)
    only_number = read({"type": "TopK", "topK": 2, "capacityFactor": "2"})
    assert only_number.capacity is not None
    assert only_number.capacity.overflow is Overflow.RESIDUAL
    assert read({"type": "TopK", "topK": 2}).capacity is None


def test_what_a_kind_takes_for_granted_may_be_said() -> None:
    said = read({"type": "NoisyTopK", "topK": 2, "weights": "SoftmaxOfChosen"})
    assert said == Policy(2, Kind.NOISY_TOP_K)
    assert said.weighting is Weights.SOFTMAX_OF_CHOSEN


def with_contexts(**changed: Any) -> dict[str, Any]:
    legal = {"name": "legal", "biases": [{"id": "e0", "bias": "1"}]}
    return {"type": "TopK", "topK": 1, "contexts": {"bound": "4", "known": [legal]} | changed}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"type": "Coin", "topK": 1}, "policy.type is 'Coin'; it must be one of TopK, Switch"),
        ({"type": "TopK"}, "policy.topK is missing"),
        ({"type": "TopK", "topK": 65}, "policy.topK is 65"),
        ({"type": "Switch", "topK": 2}, "policy.topK is 2; Switch has 1"),
        ({"type": "TopK", "topK": 1, "scoring": "Sigmoid"}, "scoring is for GroupLimitedTopK"),
        ({"type": "TopK", "topK": 1, "noise": {"seed": 1}}, "policy.noise is for NoisyTopK"),
        ({"type": "TopK", "topK": 1, "bias": "Selection"}, "bias Selection is for GroupLimited"),
        ({"type": "GroupLimitedTopK", "topK": 1}, "policy.groups is missing"),
        ({**LIMITED, "groups": {"count": 2, "chosen": 3}}, "policy.groups.chosen is 3"),
        ({**LIMITED, "weights": "SoftmaxOfChosen"}, "must be Renormalised or AsScored"),
        ({**LIMITED, "routedScaling": 2.5}, "policy.routedScaling is 2.5; it must be text"),
        ({**LIMITED, "routedScaling": "1e3"}, "policy.routedScaling is '1e3'"),
        ({"type": "NoisyTopK", "topK": 1, "noise": {"seed": -1}}, "policy.noise.seed is -1"),
        ({"type": "Switch", "topK": 1, "weights": "Renormalised"}, "of Switch it must be AsScored"),
        ({"type": "ExpertChoice", "topK": 1, "capacityFactor": "1"}, "has no overflow"),
        ({"type": "TopK", "topK": 1, "capacityFactor": "0"}, "from 0.01 to 100"),
        (with_contexts(bound="101"), "policy.contexts.bound is '101'"),
        (with_contexts(known=[]), "policy.contexts.known has 0 entries"),
        (with_contexts(known=[{"name": "", "biases": []}]), "known[0].name is ''"),
        (with_contexts(known=[{"name": "a", "biases": []}]), "biases has 0 entries"),
        (
            with_contexts(known=[{"name": "a", "biases": [{"id": "e0", "bias": "x"}]}]),
            "known[0].biases[0].bias is 'x'",
        ),
    ],
)
def test_a_mistake_is_named(content: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidDocument) as error:
        read(content)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"type": "TopK", "topK": 5}, "policy.topK is 5; there are 4 experts"),
        ({**LIMITED, "groups": {"count": 3, "chosen": 1}}, "4 experts cannot be in groups of"),
        ({**LIMITED, "topK": 3}, "policy.topK is 3; 1 groups have 2 experts"),
        (
            {**LIMITED, "groups": {"count": 4, "chosen": 4, "score": "TopTwoSum"}},
            "groups of one expert have no best two",
        ),
        (
            with_contexts(known=[{"name": "a", "biases": [{"id": "e9", "bias": "1"}]}]),
            "policy.contexts.known of 'a' has a bias for 'e9'; the gate lists e0, e1, e2, e3",
        ),
    ],
)
def test_what_does_not_fit_the_experts_is_named(content: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidDocument) as error:
        read(content).check(EXPERTS, "policy")
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"topK": 2, "policy": "Magic"}, "v.policy is 'Magic'; it must be 'TopK' or an object"),
        ({"topK": 2, "policy": {"type": "TopK", "topK": 1}}, "v.policy.topK is 1; topK beside"),
    ],
)
def test_a_document_that_contradicts_itself_is_refused(content: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidDocument) as error:
        read_beside(Reader(content, "v"))
    assert words in str(error.value)
