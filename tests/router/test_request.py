"""Every field of a request that can be wrong, and the sentence that says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_router.refusal import Code, Refused
from moe_router.request import parse_dispatch, parse_route
from moe_router.sessions import Start
from moe_router.view import View
from moeops.v1.router_pb2 import DispatchRequest, ForcedVersion, RouteRequest, SequenceRows
from moeops.v1.types_pb2 import DTYPE_BFLOAT16, DTYPE_FLOAT32, DTYPE_UNSPECIFIED
from tests.support.dispatching import dispatch_request
from tests.support.tables import UID, expert, gate, table, version

STABLE, V2, BAD = version("e0"), version("e0-v2"), version("e0-bad")
TABLE = replace(
    table(
        [
            replace(expert("e0", STABLE), candidate=V2, revoked=(BAD.sha256,)),
            *(expert(f"e{n}", version(f"e{n}")) for n in range(1, 4)),
        ],
        [gate([f"e{n}" for n in range(4)])],
        hidden_size=8,
        layers=2,
    ),
    trunk_sha256="ab" * 32,
)
VIEW = View.of(TABLE)


def good() -> DispatchRequest:
    return dispatch_request(TABLE, [[0, 1], [2, 3], [1, 0]])


def but(**fields: object) -> DispatchRequest:
    request = good()
    for name, value in fields.items():
        if name == "sequences":
            request.ClearField("sequences")
            request.sequences.extend(value)  # type: ignore[arg-type]
        else:
            setattr(request, name, value)
    return request


def indexes(*values: int) -> bytes:
    return np.array(values, np.int32).tobytes()


def weights(*values: float) -> bytes:
    return np.array(values, np.float32).tobytes()


def forced(*pairs: tuple[str, str]) -> DispatchRequest:
    versions = [ForcedVersion(expert_id=name, sha256=sha256) for name, sha256 in pairs]
    return but(sequences=[SequenceRows(session="s", rows=3, forced=versions)])


INVALID, UNMET, UNKNOWN = Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.NOT_FOUND


def test_a_good_request_becomes_arrays_of_the_right_shapes() -> None:
    request = parse_dispatch(good(), VIEW)

    assert request.experts.tolist() == [[0, 1], [2, 3], [1, 0]]
    assert request.weights.shape == (3, 2)
    assert request.rows.hidden.shape == (3, 8)
    assert request.rows.hidden.dtype.name == "bfloat16"
    assert [(s.session, s.first, s.last) for s in request.rows.sequences] == [("s", 0, 3)]


def test_versions_are_forced_for_their_sequence() -> None:
    message = forced(("e0", V2.sha256), ("e3", version("e3").sha256))
    message.sequences.add(session="t", rows=1)
    message.hidden += bytes(16)
    message.expert_index += indexes(0, 1)
    message.expert_weights += weights(0.5, 0.5)

    one, other = parse_dispatch(message, VIEW).rows.sequences

    assert one.forced == {"e0": V2, "e3": version("e3")}
    assert other.forced == {}


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        pytest.param(lambda: but(request_id=0), INVALID, "request_id is 0", id="no id"),
        pytest.param(
            lambda: but(mixture="big"), UNMET, "mixture is 'big'; this router serves 'tiny'",
            id="another mixture",
        ),
        pytest.param(lambda: but(mixture=""), UNMET, "mixture is ''", id="no mixture"),
        pytest.param(
            lambda: but(trunk_sha256="cd" * 32), UNMET, f"{'cd' * 32}'; the experts belong to the "
            f"trunk {'ab' * 32}", id="another trunk",
        ),
        pytest.param(
            lambda: but(gate_sha256="00" * 32), UNMET,
            f"{'00' * 32}'; layer 0 is served with gate 'gate' version 'gate-v1', which is "
            f"{TABLE.gates[0].stable.sha256}", id="a gate that is not served",
        ),
        pytest.param(lambda: but(gate_sha256=""), UNMET, "gate_sha256 is ''", id="no gate"),
        pytest.param(
            lambda: but(layer=2), UNKNOWN, "layer is 2; mixture 'tiny' has 0 to 1",
            id="no such layer",
        ),
        pytest.param(lambda: but(layer=1), UNKNOWN, "layer 1 of mixture 'tiny' has no gate yet",
                     id="a layer without a gate"),
        pytest.param(lambda: but(dtype=DTYPE_FLOAT32), INVALID, "dtype is 1; the mixture's is "
                     "BFloat16 (2)", id="another dtype"),
        pytest.param(lambda: but(dtype=77), INVALID, "dtype is 77", id="a dtype of the future"),
        pytest.param(lambda: but(hidden_size=16), INVALID, "hidden_size is 16; it must be 8",
                     id="another width"),
        pytest.param(lambda: but(top_k=3), INVALID, "top_k is 3; gate 'gate' chooses 2 experts",
                     id="another top-k"),
        pytest.param(lambda: but(top_k=0), INVALID, "top_k is 0", id="no top-k"),
        pytest.param(lambda: but(sequences=[]), INVALID, "sequences is empty", id="no sequences"),
        pytest.param(
            lambda: but(sequences=[SequenceRows(session="", rows=3)]), INVALID,
            "sequences[0].session has 0 bytes; it must have 1 to 128", id="no session",
        ),
        pytest.param(
            lambda: but(sequences=[SequenceRows(session="é" * 65, rows=3)]), INVALID,
            "sequences[0].session has 130 bytes", id="a session name too long",
        ),
        pytest.param(
            lambda: but(sequences=[SequenceRows(session="s", rows=3), SequenceRows(session="t")]),
            INVALID, "sequences[1].rows is 0", id="a sequence without rows",
        ),
        pytest.param(
            lambda: but(sequences=[SequenceRows(session="s", rows=4)]), INVALID,
            "hidden has 48 bytes; 4 x 8 of bfloat16 are 64", id="more rows named than sent",
        ),
        pytest.param(
            lambda: but(sequences=[SequenceRows(session="s", rows=2**32 - 1)]), INVALID,
            "hidden has 48 bytes", id="billions of rows named",
        ),
        pytest.param(
            lambda: but(sequences=[SequenceRows(session="s", rows=3, start_token=b"nonsense")]),
            INVALID, "sequences[0].start_token is b'nonsense'", id="a forged token",
        ),
        pytest.param(
            lambda: but(sequences=[
                SequenceRows(session="s", rows=3, start_token=Start(UID, 1).to_token("t"))
            ]),
            INVALID, "which is not a token of session 's'", id="the token of another session",
        ),
        pytest.param(
            lambda: forced(("e9", V2.sha256)), INVALID,
            "sequences[0].forced[0].expert_id is 'e9'; it must be an expert of mixture 'tiny'",
            id="a version forced of no expert",
        ),
        pytest.param(
            lambda: forced(("e0", STABLE.sha256), ("e1", "ab")), INVALID,
            "sequences[0].forced[1].sha256 is 'ab'; the table names for expert 'e1': "
            f"{version('e1').sha256}", id="no version of that expert",
        ),
        pytest.param(
            lambda: forced(("e0", V2.sha256), ("e0", V2.sha256)), INVALID,
            "sequences[0].forced[1].expert_id is 'e0' once more", id="forced twice",
        ),
        pytest.param(
            lambda: forced(*[("e0", V2.sha256)] * 65), INVALID,
            "sequences[0].forced has 65 versions; at most 64", id="too many forced",
        ),
        pytest.param(
            lambda: forced(("e0", BAD.sha256)), UNMET,
            f"sequences[0].forced[0].sha256 is {BAD.sha256}, a version of expert 'e0' that was "
            "taken back", id="a version that was taken back",
        ),
        pytest.param(lambda: but(hidden=b"\0" * 47), INVALID, "hidden has 47 bytes",
                     id="hidden cut short"),
        pytest.param(lambda: but(hidden=b""), INVALID, "hidden has 0 bytes", id="no hidden"),
        pytest.param(lambda: but(expert_index=indexes(0, 1)), INVALID,
                     "expert_index has 8 bytes; 3 x 2 of int32 are 24", id="indexes cut short"),
        pytest.param(lambda: but(expert_index=indexes(0, 1, 2, 4, 0, 1)), INVALID,
                     "expert_index[1, 1] is 4; gate 'gate' knows 4 experts", id="no such expert"),
        pytest.param(lambda: but(expert_index=indexes(-1, 1, 2, 3, 0, 1)), INVALID,
                     "expert_index[0, 0] is -1", id="a negative expert"),
        pytest.param(lambda: but(expert_weights=weights(1.0)), INVALID,
                     "expert_weights has 4 bytes", id="weights cut short"),
        pytest.param(lambda: but(expert_weights=weights(1, 1, 1, float("nan"), 1, 1)), INVALID,
                     "expert_weights[1, 1] is nan", id="a weight that is no number"),
        pytest.param(lambda: but(expert_weights=weights(1, 1, 1, 1, 1, -0.5)), INVALID,
                     "expert_weights[2, 1] is -0.5", id="a negative weight"),
        pytest.param(lambda: but(weights_dtype=DTYPE_UNSPECIFIED), INVALID,
                     "weights_dtype is 0; it must be one of", id="weights of no dtype"),
        pytest.param(lambda: but(deadline_ms=700_000), INVALID, "deadline_ms is 700000; at most "
                     "600000", id="a deadline without end"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    message: Callable[[], DispatchRequest], code: Code, words: str
) -> None:
    with pytest.raises(Refused) as caught:
        parse_dispatch(message(), VIEW)

    assert words in caught.value.message
    assert caught.value.code is code


def test_route_checks_what_it_has_in_common() -> None:
    request = RouteRequest(
        request_id=1,
        mixture="tiny",
        layer=0,
        dtype=DTYPE_BFLOAT16,
        hidden_size=8,
        sequences=[SequenceRows(session="s", rows=1)],
        hidden=b"\0" * 15,
    )

    with pytest.raises(Refused, match="hidden has 15 bytes; 1 x 8 of bfloat16 are 16"):
        parse_route(request, VIEW)


numbers = st.integers(0, 2**32 - 1) | st.integers(0, 4)
lengths = st.sampled_from([24, 48, 0, 1, 16, 32])


@settings(max_examples=300)
@given(
    fields=st.fixed_dictionaries(
        {},
        optional={
            "layer": numbers,
            "dtype": st.integers(0, 5),
            "hidden_size": numbers,
            "top_k": numbers,
            "weights_dtype": st.integers(0, 5),
            "deadline_ms": numbers,
            "hidden": lengths.flatmap(lambda n: st.binary(min_size=n, max_size=n)),
            "expert_index": lengths.flatmap(lambda n: st.binary(min_size=n, max_size=n)),
            "expert_weights": lengths.flatmap(lambda n: st.binary(min_size=n, max_size=n)),
        },
    ),
    rows=st.lists(st.integers(0, 4) | numbers, max_size=3),
)
def test_no_message_does_anything_but_fit_or_be_refused(
    fields: dict[str, object], rows: list[int]
) -> None:
    sequences = [SequenceRows(session="s", rows=count) for count in rows or [3]]
    try:
        request = parse_dispatch(but(sequences=sequences, **fields), VIEW)
    except Refused:
        return
    tokens = sum(rows or [3])
    assert request.rows.hidden.shape == (tokens, 8)
    assert request.experts.shape == request.weights.shape == (tokens, 2)
    assert ((request.experts >= 0) & (request.experts < 4)).all()


def test_a_client_that_does_not_know_its_trunk_is_served() -> None:
    request = good()
    request.trunk_sha256 = ""

    assert parse_dispatch(request, VIEW).rows.layer == 0
