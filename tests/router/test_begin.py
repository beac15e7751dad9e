"""Sessions that begin before their first rows, and gates that clients fetch: over gRPC."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from moe_core.policy import Kind, Policy
from moe_core.rows import GateVariant
from moe_core.table import Table
from moe_router.sessions import Start
from moe_router.view import View
from moeops.v1.router_pb2 import (
    BeginRequest,
    DescribeMixtureRequest,
    FetchGateRequest,
    SessionRef,
)
from tests.fakes.worker import until
from tests.router.gated import (
    CANDIDATE,
    STABLE,
    gated,
    promoted,
    session_on,
    taken_back,
    tried,
)
from tests.router.test_service import Served, served
from tests.support.gates import write_gate
from tests.support.tables import UID

OLD, NEW = session_on(candidate=False), session_on(candidate=True)
SHAPE = (3, 4)


def beginning(sessions: Iterable[SessionRef], mixture: str = "tiny") -> BeginRequest:
    return BeginRequest(mixture=mixture, sessions=sessions)


def begun(name: str, epoch: int) -> SessionRef:
    return SessionRef(session=name, start_token=Start(UID, epoch).to_token(name))


async def test_a_session_is_told_its_token_and_its_variant_of_each_gate() -> None:
    async with served(gated(tried())) as it:
        seen = await it.stub.Begin(beginning([SessionRef(session=OLD), SessionRef(session=NEW)]))

        assert (seen.table_uid, seen.epoch) == (UID, 1)
        assert [s.start_token for s in seen.sessions] == [
            Start(UID, 1).to_token(OLD),
            Start(UID, 1).to_token(NEW),
        ]
        assert [[(g.name, g.sha256) for g in s.gates] for s in seen.sessions] == [
            [("gate", STABLE.sha256)],
            [("gate", CANDIDATE.sha256)],
        ]


@pytest.mark.parametrize(
    ("content", "began", "session", "expected"),
    [
        pytest.param(gated(tried((2, 50)), 2), 1, NEW, STABLE, id="began before the weight"),
        pytest.param(gated(tried((2, 50)), 2), 2, NEW, CANDIDATE, id="began under it"),
        pytest.param(gated(promoted(kept=True), 2), 1, OLD, STABLE, id="the old one is kept"),
        pytest.param(gated(promoted(kept=False), 3), 1, OLD, CANDIDATE, id="it is gone"),
        pytest.param(gated(taken_back(), 2), 1, NEW, STABLE, id="taken back"),
    ],
)
async def test_a_session_that_began_before_keeps_its_token_and_follows_its_pins(
    content: Table, began: int, session: str, expected: GateVariant
) -> None:
    async with served(content) as it:
        asked = begun(session, began)
        (seen,) = (await it.stub.Begin(beginning([asked]))).sessions

        assert seen.start_token == asked.start_token
        assert [pin.sha256 for pin in seen.gates] == [expected.sha256]


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        pytest.param(beginning([]), "INVALID_ARGUMENT", "sessions has 0 of them; it must have 1 "
                     "to 1024", id="none"),
        pytest.param(beginning([SessionRef(session="s")] * 1025), "INVALID_ARGUMENT",
                     "sessions has 1025", id="too many"),
        pytest.param(beginning([SessionRef(session="s"), SessionRef()]), "INVALID_ARGUMENT",
                     "sessions[1].session has 0 bytes", id="no name"),
        pytest.param(beginning([SessionRef(session="s", start_token=b"x")]), "INVALID_ARGUMENT",
                     "sessions[0].start_token is b'x'", id="no token"),
        pytest.param(beginning([SessionRef(session="s")], "big"), "FAILED_PRECONDITION",
                     "mixture is 'big'; this router serves 'tiny'", id="another mixture"),
        pytest.param(beginning([begun("s", 9)]), "UNAVAILABLE",
                     "began in epoch 9; this router has only seen 1", id="a later epoch"),
    ],
)  # fmt: skip
async def test_what_cannot_begin_is_refused_with_a_sentence(
    request_: BeginRequest, code: str, words: str
) -> None:
    async with served(gated(tried())) as it:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await it.stub.Begin(request_)

        assert caught.value.code().name == code
        assert words in (caught.value.details() or "")


def on_disk(variant: GateVariant, directory: Path, experts: tuple[str, ...] = ()) -> GateVariant:
    weight = np.arange(12, dtype=np.float32).reshape(SHAPE) + variant.top_k
    written = write_gate(
        directory, {0: weight}, experts or variant.experts, top_k=variant.top_k,
        name=variant.version,
    )  # fmt: skip
    return replace(variant, sha256=written.sha256, uri=written.path.as_uri())


async def fetched(it: Served, sha256: str, mixture: str = "tiny") -> tuple[bytes, set[int]]:
    call = it.stub.FetchGate(FetchGateRequest(mixture=mixture, sha256=sha256))
    chunks = [chunk async for chunk in call]
    assert max(len(chunk.data) for chunk in chunks) <= 256 << 10
    return b"".join(chunk.data for chunk in chunks), {chunk.size for chunk in chunks}


async def loaded(it: Served, *variants: GateVariant) -> None:
    states = it.servicer.gates.standings
    wanted = {v.sha256 for v in variants}
    await until(
        lambda: {s.sha256 for s in states() if s.state == "Loaded"} == wanted, "gates are here"
    )


async def test_every_gate_that_the_table_names_can_be_fetched(tmp_path: Path) -> None:
    stable, candidate = on_disk(STABLE, tmp_path), on_disk(CANDIDATE, tmp_path)
    async with served(gated(tried(stable=stable, candidate=candidate))) as it:
        await loaded(it, stable, candidate)

        for variant in (stable, candidate):
            content = (tmp_path / f"{variant.version}.safetensors").read_bytes()
            assert await fetched(it, variant.sha256) == (content, {len(content)})


async def test_a_large_gate_comes_in_pieces(tmp_path: Path) -> None:
    weight = np.zeros((3, 1 << 16), np.float32)
    written = write_gate(tmp_path, {0: weight}, STABLE.experts)
    stable = replace(STABLE, sha256=written.sha256, uri=written.path.as_uri())
    content = replace(gated(tried(stable=stable)), hidden_size=1 << 16)
    async with served(content) as it:
        await loaded(it, stable)

        data, sizes = await fetched(it, stable.sha256)

        assert data == written.path.read_bytes()
        assert sizes == {len(data)}


async def refusal(it: Served, sha256: str, mixture: str = "tiny") -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await fetched(it, sha256, mixture)
    return caught.value


async def test_a_gate_that_cannot_be_fetched_is_refused_with_a_sentence(tmp_path: Path) -> None:
    async with served(gated(tried())) as it:
        unknown = await refusal(it, "00" * 32)
        assert unknown.code() is grpc.StatusCode.NOT_FOUND
        assert (
            f"'gate': 'gate-v1' {STABLE.sha256}, 'gate-v2' {CANDIDATE.sha256}" in unknown.details()
        )
        coming = await refusal(it, CANDIDATE.sha256)
        assert coming.code() is grpc.StatusCode.UNAVAILABLE
        assert "gate 'gate' version 'gate-v2' is not here yet" in coming.details()
        assert dict(coming.trailing_metadata()) == {"grpc-retry-pushback-ms": "500"}
        other = await refusal(it, STABLE.sha256, "big")
        assert other.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_an_artifact_that_is_not_what_the_table_says_is_not_given_out(
    tmp_path: Path,
) -> None:
    stable = on_disk(STABLE, tmp_path)
    candidate = on_disk(CANDIDATE, tmp_path, experts=("b", "a", "c"))
    async with served(gated(tried(stable=stable, candidate=candidate))) as it:
        await loaded(it, stable)
        await until(
            lambda: any(s.state == "Refused" for s in it.servicer.gates.standings()), "it is read"
        )

        refused = await refusal(it, candidate.sha256)

        assert "the artifact's experts[2] is 'c'; the table says 'd'" in refused.details()


async def test_the_mixture_is_described_with_every_version_of_its_gates() -> None:
    async with served(gated(tried())) as it:
        (seen,) = (await it.stub.DescribeMixture(DescribeMixtureRequest(mixture="tiny"))).gates

        assert (seen.version, list(seen.experts), seen.top_k) == ("gate-v1", ["a", "b", "c"], 2)
        assert [(o.version, o.sha256, list(o.experts), o.top_k) for o in seen.others] == [
            ("gate-v2", CANDIDATE.sha256, ["b", "a", "d"], 1)
        ]
        assert (seen.policy, seen.others[0].policy) == ("", "")


async def test_a_policy_with_settings_is_described_as_its_json() -> None:
    switch = Policy(1, Kind.SWITCH)
    async with served(gated(tried(candidate=replace(CANDIDATE, policy=switch)))) as it:
        (seen,) = (await it.stub.DescribeMixture(DescribeMixtureRequest(mixture="tiny"))).gates

        assert json.loads(seen.others[0].policy) == {"type": "Switch", "topK": 1}


def test_a_view_knows_the_gates_that_are_tried_out() -> None:
    assert [g.name for g in View.of(gated(tried())).tried_gates] == ["gate"]
    assert View.of(gated(promoted(kept=True), 2)).tried_gates == ()
    assert [g.name for g in View.of(gated(taken_back(), 2)).rolling_gates] == ["gate"]
