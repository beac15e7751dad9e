"""Every policy through Route: what a message must say for it, what is refused, what comes out.

Experts a, b and c multiply by 1, 2 and 4, and the gate's logits are a row's first three numbers.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe_artifacts.artifact import GateLayer
from moe_core.contexts import Context, Contexts
from moe_core.policy import (
    Bias,
    Capacity,
    Groups,
    Kind,
    Overflow,
    Policy,
    Scoring,
    Weights,
)
from moe_core.rows import GateVariant
from moe_router.application import Batch
from moe_router.engine import Answer
from moe_router.gate_shadow import Sample, score
from moe_router.gates import GateArtifacts, State
from moe_router.refusal import Code, Refused
from moe_router.view import View
from moeops.v1.router_pb2 import RouteRequest, SequenceRows
from moeops.v1.types_pb2 import DTYPE_FLOAT32
from tests.fakes.links import FakeWorker
from tests.fakes.worker import until
from tests.router.bench import IDS, A, B, Bench, C, mixture, worker
from tests.router.gated import CANDIDATE, EXPERTS, STABLE, gated, session_on, tried
from tests.support.gates import write_gate
from tests.support.tables import expert, gate, table

EYE = np.eye(3, 4, dtype=np.float32)
FACTORS = np.array([1.0, 2.0, 4.0])
LEGAL = Contexts(
    Decimal(3),
    (
        Context("legal", (("c", Decimal(50)), ("a", Decimal("-0.5")))),
        Context("code", (("b", Decimal(1)),)),
    ),
)


def house(policy: Policy, **tensors: Any) -> Bench:
    content = mixture()
    (row,) = content.gates
    row = replace(row, stable=replace(row.stable, policy=policy))
    layer = GateLayer(EYE, **tensors)
    content = replace(content, gates=(row,))
    return Bench(content, {"w": worker(A, B, C)}, gates={row.stable.sha256: layer})


def sequence(rows: int, session: str = "s", **said: Any) -> SequenceRows:
    return SequenceRows(session=session, rows=rows, **said)


async def route(bench: Bench, logits: list[list[float]], *sequences: SequenceRows) -> Answer:
    hidden = np.array([[*row, 1.0] for row in logits], np.float32)
    request = RouteRequest(
        request_id=1,
        mixture="tiny",
        dtype=DTYPE_FLOAT32,
        hidden_size=4,
        sequences=sequences or [sequence(len(logits))],
        hidden=hidden.tobytes(),
    )
    return await bench.engine.route(request)


def sums(answer: Answer) -> list[float]:
    """Each row's Σ weight·factor: the last number of a row is 1."""
    return [float(x) for x in answer.hidden[:, 3]]


def softmax(*logits: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    above = np.exp(logits)
    return np.asarray(above / above.sum())


SHARES = softmax(2, 1, 0)
SIGMOIDS = 1 / (1 + np.exp(-np.array([2.0, 1.0, 0.0])))


@pytest.mark.parametrize(
    ("policy", "tensors", "expected"),
    [
        pytest.param(Policy(2), {}, SHARES[:2] @ FACTORS[:2] / SHARES[:2].sum(), id="TopK"),
        pytest.param(
            Policy(2, weights=Weights.AS_SCORED), {}, SHARES[:2] @ FACTORS[:2], id="as scored"
        ),
        pytest.param(
            Policy(1, weights=Weights.AS_SCORED, bias=Bias.LOGITS),
            {"bias": np.array([0, 0, 3], np.float32)},
            softmax(2, 1, 3)[2] * 4,
            id="with a bias of the logits",
        ),
        pytest.param(Policy(1, Kind.SWITCH), {}, SHARES[0], id="Switch"),
        pytest.param(Policy(2, Kind.NOISY_TOP_K), {}, softmax(2, 1) @ FACTORS[:2], id="NoisyTopK"),
        pytest.param(
            Policy(
                1,
                Kind.GROUP_LIMITED_TOP_K,
                Weights.AS_SCORED,
                Bias.SELECTION,
                Scoring.SIGMOID,
                Groups(3, 1),
                Decimal("2.5"),
            ),
            {"selection_bias": np.array([0, 0, 1], np.float32)},
            SIGMOIDS[2] * 4 * 2.5,
            id="GroupLimitedTopK",
        ),
    ],
)
async def test_a_policy_decides_who_answers_and_with_which_weight(
    policy: Policy, tensors: dict[str, Any], expected: float
) -> None:
    answer = await route(house(policy, **tensors), [[2, 1, 0]])
    assert sums(answer)[0] == pytest.approx(expected, rel=1e-6)


async def test_expert_choice_gives_rows_as_many_experts_as_take_them() -> None:
    """Each of three experts takes one of three rows: b and c both take the second."""
    bench = house(Policy(1, Kind.EXPERT_CHOICE))
    logits: list[list[float]] = [[5, 0, 0], [0, 4, 4], [1, 1, 1]]
    answer = await route(bench, logits, sequence(3, whole=True))

    second = softmax(0, 4, 4)
    expected = [softmax(5, 0, 0)[0], second[1] * 2 + second[2] * 4, 0]
    np.testing.assert_allclose(sums(answer), expected, rtol=1e-6)
    assert [fate.outcome.lost for fate in answer.fates] == [0]
    layer = bench.engine.counters.gates.of("gate", bench.table.gates[0].stable.sha256).layers[0]
    assert layer.pairs.tolist() == [1, 1, 1]
    assert layer.overflow_pairs == 0


async def test_expert_choice_of_a_part_of_a_sequence_is_refused_with_the_reason() -> None:
    bench = house(Policy(1, Kind.EXPERT_CHOICE))
    with pytest.raises(Refused, match=r"sequences\[1\].whole is not set; .*rows after it") as error:
        await route(bench, [[0, 0, 0]] * 2, sequence(1, whole=True), sequence(1, "t"))
    assert error.value.code is Code.FAILED_PRECONDITION


async def test_a_context_leads_rows_to_the_experts_that_know_it_up_to_the_bound() -> None:
    bench = house(Policy(1, weights=Weights.AS_SCORED, contexts=LEGAL))
    said = [sequence(1), sequence(1, "t", context="legal"), sequence(1, "u", context="code")]
    answer = await route(bench, [[1.0, 0.5, 0.0]] * 3, *said)

    expected = [
        softmax(1, 0.5, 0)[0],
        softmax(0.5, 0.5, 3)[2] * 4,  # 50 is clipped to 3
        softmax(1, 1.5, 0)[1] * 2,
    ]
    np.testing.assert_allclose(sums(answer), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy(1, contexts=LEGAL), "context is 'medical'; version 'gate-v1' of gate 'gate' "
         "knows: legal, code"),
        (Policy(1), "knows: none"),
    ],
)  # fmt: skip
async def test_a_context_that_the_gate_does_not_know_is_refused(policy: Policy, words: str) -> None:
    with pytest.raises(Refused, match=words) as refused:
        await route(house(policy), [[0, 0, 0]], sequence(1, context="medical"))
    assert refused.value.code is Code.INVALID_ARGUMENT


async def test_noise_is_the_same_again_and_another_with_another_seed() -> None:
    scale = np.ones((3, 4), np.float32)
    rows = np.random.default_rng(0).normal(size=(16, 3)).round(2).tolist()

    async def answers(seed: int, part: slice) -> list[float]:
        policy = Policy(1, Kind.NOISY_TOP_K, noise_seed=seed)
        return sums(await route(house(policy, noise_weight=scale), rows[part]))

    all_rows = await answers(1, slice(None))
    assert await answers(1, slice(4, 9)) == all_rows[4:9]
    assert await answers(2, slice(None)) != all_rows


@pytest.mark.parametrize("overflow", Overflow)
async def test_what_is_beyond_a_capacity_goes_elsewhere_and_is_counted_as_it_was_wished(
    overflow: Overflow,
) -> None:
    """Three rows of one session for a, which takes one; the other session's row is its own."""
    limits = Capacity(Decimal(1), overflow)
    bench = house(Policy(1, weights=Weights.AS_SCORED, capacity=limits))
    logits: list[list[float]] = [[2, 1, 0]] * 4
    answer = await route(bench, logits, sequence(3), sequence(1, "t"))

    beyond = [0.0, 0.0] if overflow is Overflow.RESIDUAL else [SHARES[1] * 2, SHARES[2] * 4]
    np.testing.assert_allclose(sums(answer), [SHARES[0], *beyond, SHARES[0]], rtol=1e-6)
    assert [fate.degraded for fate in answer.fates] == [False, False]
    layer = bench.engine.counters.gates.of("gate", bench.table.gates[0].stable.sha256).layers[0]
    assert layer.pairs.tolist() == [4, 0, 0]
    assert layer.overflow_pairs == 1  # at 1.2 there is room for two


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy(1, Kind.EXPERT_CHOICE), "has the policy ExpertChoice, which routers apply"),
        (Policy(1, capacity=Capacity()), "has a capacityFactor"),
        (Policy(1, Kind.NOISY_TOP_K, noise_seed=1), "has seeded noise"),
    ],
)
async def test_what_only_a_router_can_apply_is_refused_in_dispatch(
    policy: Policy, words: str
) -> None:
    refused = await house(policy).refused([[0]])
    assert refused.code is Code.FAILED_PRECONDITION
    assert words in str(refused)


async def test_a_context_in_dispatch_is_refused() -> None:
    bench = house(Policy(1, contexts=LEGAL))
    refused = await bench.refused([[0]], sessions=[sequence(1, context="legal")])
    assert "is for Route" in str(refused)


async def held(variant: GateVariant, directory: Path) -> tuple[GateArtifacts, View]:
    """Return what a router makes of a table with this gate, once it knows."""
    row = replace(gate(IDS), stable=variant)
    view = View.of(table([expert(e) for e in IDS], [row], hidden_size=4))
    artifacts = GateArtifacts(directory / "cache")
    artifacts.want(view)
    await until(
        lambda: all(one.state is not State.FETCHING for one in artifacts.standings()), "it is read"
    )
    return artifacts, view


def on_disk(policy: Policy, directory: Path) -> GateVariant:
    bias = {"layers.0.selection_bias": np.array([0.5, 0.0, -1.5], np.float32)}
    written = write_gate(directory, {0: EYE}, IDS, policy=policy, others=bias)
    return GateVariant("g1", written.sha256, written.path.as_uri(), IDS, policy)


DEEPSEEK = Policy(1, Kind.GROUP_LIMITED_TOP_K, bias=Bias.SELECTION, groups=Groups(3, 2))


async def test_what_a_gate_has_learned_comes_with_its_artifact(tmp_path: Path) -> None:
    variant = on_disk(DEEPSEEK, tmp_path)
    artifacts, view = await held(variant, tmp_path)
    layer = artifacts.layer(view.gates[0], variant, 0)
    assert layer.selection_bias is not None
    assert layer.selection_bias.tolist() == [0.5, 0.0, -1.5]
    assert (layer.weight == EYE).all()
    assert layer.bias is None
    assert layer.noise_weight is None


async def test_a_table_with_another_policy_than_the_artifact_is_refused(tmp_path: Path) -> None:
    variant = replace(on_disk(DEEPSEEK, tmp_path), policy=replace(DEEPSEEK, contexts=LEGAL))
    artifacts, view = await held(variant, tmp_path)
    with pytest.raises(Refused, match=r"the artifact's policy is .*; the table's is .*'legal'"):
        artifacts.layer(view.gates[0], variant, 0)


async def test_sessions_on_two_policies_of_one_message_get_what_each_would_alone() -> None:
    """Stable sends a row to two of a, b and c; the candidate's b, a and d each take one row."""
    stable = replace(STABLE, policy=Policy(2, weights=Weights.AS_SCORED))
    candidate = replace(CANDIDATE, policy=Policy(1, Kind.EXPERT_CHOICE))
    content = gated(tried(stable=stable, candidate=candidate))
    layers = {v.sha256: GateLayer(EYE) for v in (stable, candidate)}
    factors = zip(EXPERTS.values(), (1.0, 2.0, 4.0, 8.0), strict=True)
    held = FakeWorker({version.sha256: factor for version, factor in factors})
    bench = Bench(content, {"w": held}, gates=layers)
    logits: list[list[float]] = [[2, 1, 0], [5, 4, 3], [0, 1, 4], [1, 1, 1]]
    ours, theirs = session_on(False), session_on(True)
    answer = await route(bench, logits, sequence(1, ours), sequence(3, theirs, whole=True))

    second, third = softmax(5, 4, 3), softmax(0, 1, 4)
    expected = [
        SHARES[:2] @ FACTORS[:2],
        second[0] * 2,  # b likes the second row best, d the third; and a the fourth
        third[2] * 8,
        1 / 3,
    ]
    np.testing.assert_allclose(sums(answer), expected, rtol=1e-6)
    tallies = bench.engine.counters.gates
    assert tallies.of("gate", stable.sha256).layers[0].pairs.tolist() == [1, 1, 0]
    assert tallies.of("gate", candidate.sha256).layers[0].pairs.tolist() == [1, 1, 1]


def test_a_shadow_chooses_by_the_policies_and_contexts_of_both() -> None:
    stable = replace(STABLE, policy=Policy(1, contexts=LEGAL))
    candidate = replace(CANDIDATE, policy=Policy(1, Kind.SWITCH))
    hidden = np.array([[1, 0, 0, 0]] * 5, np.float32)
    seen = Sample("gate", 0, stable, candidate, hidden, (Batch(2), Batch(3, "legal")))
    found = score(seen, GateLayer(EYE), GateLayer(EYE))

    assert found.base_pairs.tolist() == [2, 0, 3]  # what is legal goes to c
    assert found.pairs.tolist() == [5, 0, 0]  # the candidate does not know that
    assert found.overlap == 0
