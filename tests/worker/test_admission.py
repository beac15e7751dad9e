"""What is admitted, and the sentences of what is not."""

from __future__ import annotations

import grpc
import pytest
import torch

from moe_core.dtypes import BFLOAT16
from moe_core.exactness import fast
from moe_core.kernel import ExpertKernel
from moe_worker.admission import Gatekeeper
from moe_worker.attempt import Group
from moe_worker.failure import Code
from moeops.v1.link_pb2 import Compute
from moeops.v1.types_pb2 import DTYPE_BFLOAT16, DTYPE_FLOAT16, Dtype, Failure
from tests.support.link import compute

HIDDEN = 8
HERE = "ab" * 32
KERNEL = ExpertKernel(
    torch.zeros(4, HIDDEN), torch.zeros(4, HIDDEN), torch.zeros(HIDDEN, 4), fast()
)
KEEPER = Gatekeeper(
    HIDDEN,
    BFLOAT16,
    max_rows=100,
    find=lambda sha256, layer: KERNEL if (sha256, layer) == (HERE, 0) else None,
)


def message(
    *groups: tuple[str, int],
    layer: int = 0,
    dtype: Dtype.ValueType = DTYPE_BFLOAT16,
    h: int = HIDDEN,
) -> Compute:
    return compute(1, groups, hidden_size=h, layer=layer, dtype=dtype).compute


def bytes_of(rows: int) -> int:
    return rows * HIDDEN * 2


def test_groups_lie_one_after_another() -> None:
    admitted = KEEPER.admit(message((HERE, 3), ("cd" * 32, 5), (HERE, 2)), bytes_of(10))
    first, missing, second = admitted.asked
    assert isinstance(first, Group)
    assert isinstance(missing, Failure)
    assert isinstance(second, Group)
    assert (first.first, first.out, first.rows) == (0, 0, 3)
    assert (second.first, second.out, second.rows) == (8, 3, 2)
    assert admitted.rows == 10
    assert admitted.wanted


@pytest.mark.parametrize(
    ("asked", "body_bytes", "code", "sentence"),
    [
        pytest.param(message(("cd" * 32, 1)), bytes_of(1), 5, "is not served here", id="digest"),
        pytest.param(message((HERE, 1), layer=3), bytes_of(1), 5, "for layer 3", id="layer"),
        pytest.param(message(("", 1)), bytes_of(1), 5, "groups.sha256 ''", id="no digest"),
        pytest.param(message(("x" * 9999, 1)), bytes_of(1), 5, "xxx", id="endless digest"),
        pytest.param(message((HERE, 0)), 0, 3, "groups.rows is 0", id="no rows"),
        pytest.param(
            message((HERE, 1), dtype=DTYPE_FLOAT16),
            bytes_of(1),
            3,
            "dtype is DTYPE_FLOAT16; this worker serves DTYPE_BFLOAT16",
            id="dtype",
        ),
        pytest.param(
            message((HERE, 1), dtype=77),  # type: ignore[arg-type]
            bytes_of(1),
            3,
            "dtype is 77; this worker serves DTYPE_BFLOAT16",
            id="dtype of the future",
        ),
        pytest.param(
            message((HERE, 1), h=16), 32, 3, "hidden_size is 16; this worker's is 8", id="width"
        ),
        pytest.param(
            message((HERE, 2)),
            bytes_of(1),
            3,
            "body has 16 bytes; 2 rows of 8 BFloat16 are 32",
            id="short body",
        ),
        pytest.param(message((HERE, 2)), bytes_of(3), 3, "body has 48 bytes", id="long body"),
        pytest.param(
            message((HERE, 60), (HERE, 41)),
            bytes_of(101),
            3,
            "rows are 101; one message may have at most 100",
            id="too many rows",
        ),
        pytest.param(
            message((HERE, 2**32 - 1)), bytes_of(1), 3, "rows are 4294967295", id="overflowing rows"
        ),
        pytest.param(
            message(*[(HERE, 1)] * 5000), bytes_of(5000), 3, "groups are 5000", id="groups"
        ),
    ],
)
def test_what_is_wrong_is_refused_with_a_sentence(
    asked: Compute, body_bytes: int, code: int, sentence: str
) -> None:
    admitted = KEEPER.admit(asked, body_bytes)
    assert not admitted.wanted
    assert len(admitted.asked) == len(asked.groups)
    for failure in admitted.asked:
        assert isinstance(failure, Failure)
        assert failure.code == code
        assert sentence in failure.message
        assert len(failure.message) < 300


def test_codes_are_those_of_grpc() -> None:
    numbers = {code.name: code.value[0] for code in grpc.StatusCode}
    assert all(numbers[code.name] == code for code in Code)


def test_a_message_without_groups_wants_nothing() -> None:
    assert not KEEPER.admit(message(), 0).wanted
