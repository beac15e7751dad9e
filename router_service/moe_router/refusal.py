"""Why a request, or a part of one, is not answered: a code of gRPC and one sentence.

Raised by the stages that decide, turned into a `Failure` in the answer by the service.
"""

from __future__ import annotations

from enum import IntEnum

from moeops.v1.types_pb2 import Failure


class Code(IntEnum):
    """The canonical status codes that a router uses."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class Refused(Exception):
    """The request fails. The sentence names the field or the expert and what would be right."""

    def __init__(self, code: Code, message: str, retry_after_ms: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms

    def to_failure(self) -> Failure:
        return Failure(
            code=self.code.value, message=self.message, retry_after_ms=self.retry_after_ms
        )
