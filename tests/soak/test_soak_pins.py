"""What the soak tells from the bits of answers: who gave them, and whether pins were kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from e2e.soak.pins import FACTORS, Pins, known_answers
from examples.tiny import model as example
from moe_client.messages import Answer, Outcome
from moe_client.recorder import record
from moe_client.recording import LayerRows, Recording
from moe_client.sessions import SessionState
from moe_core.exactness import prove
from moe_core.kernel import ExpertKernel
from moe_core.table import Table
from moe_router.sessions import Start
from tests.support.tables import UID, expert, gate, table, version

NAMES = tuple(f"e{number}" for number in range(8))
DIGESTS = [[version(f"{name}-v{n}").sha256 for n in range(2)] for name in NAMES]


@pytest.fixture(scope="module")
def recorded() -> tuple[Recording, Pins]:
    model = example.load(torch.bfloat16)
    recording = record(model, [torch.tensor(list(b"In the beginning was the Word"))])
    return recording, Pins(known_answers(model, recording))


@pytest.fixture
def pins(recorded: tuple[Recording, Pins]) -> Pins:
    return Pins(recorded[1].known)


@pytest.fixture
def layers(recorded: tuple[Recording, Pins]) -> tuple[LayerRows, ...]:
    return recorded[0].texts[0].layers


def answered(pins: Pins, rows: LayerRows, versions: dict[int, int]) -> Answer:
    """Return the answer of these versions, of experts that are not named of the first one."""
    found = []
    for row in range(len(rows.hidden)):
        place = rows.layer, rows.hidden[row].tobytes(), rows.expert_index[row].tobytes()
        wanted = tuple((e, versions.get(e, 0)) for e in rows.expert_index[row].tolist())
        (bits,) = [bits for bits, by in pins.known[place].items() if wanted in by]
        found.append(np.frombuffer(bits, rows.hidden.dtype))
    return Answer(np.stack(found), (Outcome(b"", 0, False),), epoch=1, router_us=0)


def state(*repinned: str) -> SessionState:
    token = Start(UID, 1).to_token("s")
    return SessionState("s", token, repinned_experts=frozenset(repinned))


def serving(*second: int) -> Table:
    """Return a table with these experts' second versions, and the first of all others."""
    rows = [expert(n, version(f"{n}-v{int(at in second)}")) for at, n in enumerate(NAMES)]
    return table(rows, [gate(NAMES)])


def test_answers_of_the_first_versions_are_those_that_were_recorded(
    pins: Pins, layers: tuple[LayerRows, ...]
) -> None:
    for rows in layers:
        assert rows.expected is not None
        assert answered(pins, rows, {}).hidden.tobytes() == rows.expected.tobytes()
        assert not pins.differs(state(), rows, answered(pins, rows, {}))
    verdict = pins.verdict({1: serving()}, DIGESTS)
    assert (verdict.sessions, verdict.wrong, verdict.kept) == (1, (), True)
    used = {expert for rows in layers for expert in rows.expert_index.ravel().tolist()}
    assert verdict.seen == verdict.compared == len(used)


def test_a_second_version_answers_twice_as_much_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(3)
    gate_proj = torch.randn(64, 32, generator=generator).bfloat16()
    up = torch.randn(64, 32, generator=generator).bfloat16()
    down = torch.randn(32, 64, generator=generator).bfloat16()
    rows = torch.randn(50, 32, generator=generator).bfloat16()
    rule = prove(torch.bfloat16, 32, 64)
    once = ExpertKernel(gate_proj, up, down, rule)(rows)
    twice = ExpertKernel(gate_proj, up, FACTORS[1] * down, rule)(rows)
    assert torch.equal(twice, FACTORS[1] * once)


def test_a_session_on_second_versions_is_by_its_pins(
    pins: Pins, layers: tuple[LayerRows, ...]
) -> None:
    for rows in layers:
        assert not pins.differs(state(), rows, answered(pins, rows, {2: 1, 3: 1}))
    assert pins.verdict({1: serving(2, 3)}, DIGESTS).wrong == ()
    unknown = pins.verdict({9: serving()}, DIGESTS)
    assert (unknown.compared, unknown.kept) == (0, False), "nothing compared is nothing shown"
    wrong = pins.verdict({1: serving(2)}, DIGESTS).wrong
    assert [one.partition(";")[0] for one in wrong] == ["s saw version 1 of e3"]


def test_a_session_that_sees_both_versions_is_told_unless_it_lost_one(
    pins: Pins, layers: tuple[LayerRows, ...]
) -> None:
    used = int(layers[0].expert_index[0, 0])
    assert not pins.differs(state(), layers[0], answered(pins, layers[0], {}))
    assert not pins.differs(state(f"e{used}"), layers[0], answered(pins, layers[0], {used: 1}))
    assert pins.wrong == []
    assert not pins.differs(state(), layers[0], answered(pins, layers[0], {used: 1}))
    assert set(pins.wrong) == {f"s saw both versions of e{used}"}


def test_what_a_session_lost_before_it_saw_it_is_not_its_pin_any_more(
    pins: Pins, layers: tuple[LayerRows, ...]
) -> None:
    """Going back revokes: who began by the second version and is told so goes on by the first."""
    used = int(layers[0].expert_index[0, 0])
    for rows in layers:
        assert not pins.differs(state(f"e{used}"), rows, answered(pins, rows, {}))
    assert pins.verdict({1: serving(used)}, DIGESTS).wrong == ()


def test_one_bit_is_noticed(pins: Pins, layers: tuple[LayerRows, ...]) -> None:
    answer = answered(pins, layers[0], {})
    raw = bytearray(answer.hidden.tobytes())
    raw[7] ^= 1
    other = np.frombuffer(bytes(raw), answer.hidden.dtype).reshape(answer.hidden.shape)
    assert pins.differs(state(), layers[0], replace(answer, hidden=other))
