"""Why a part of the work was not done, in the words of the wire."""

from __future__ import annotations

from enum import IntEnum

from moeops.v1.types_pb2 import Failure


class Code(IntEnum):
    """Those of gRPC's canonical codes that a worker answers with."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    INTERNAL = 13
    UNAVAILABLE = 14


def fail(code: Code, sentence: str, retry_after_ms: int = 0) -> Failure:
    """Return a Failure; `sentence` names the field or expert, the value, what would be right."""
    return Failure(code=code, message=sentence, retry_after_ms=retry_after_ms)
