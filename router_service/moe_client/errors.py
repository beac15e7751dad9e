"""What can go wrong for a caller, as exceptions that say so in one sentence each.

Codes are gRPC's canonical ones. Nothing here decides whether to try again; `retry` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc


class MoeError(Exception):
    """A request was not answered. `epoch` is that of the table it met, 0 where none is known."""

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(
        self, message: str, *, code: grpc.StatusCode | None = None, epoch: int = 0
    ) -> None:
        super().__init__(message)
        self.message = message
        self.epoch = epoch
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        at = f" (epoch {self.epoch})" if self.epoch else ""
        return f"{self.code.name}: {self.message}{at}"


class InvalidRequest(MoeError):
    """The request is not one that this mixture can answer; the message names field and value."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(MoeError):
    """No such mixture or layer."""

    code = grpc.StatusCode.NOT_FOUND


class Mismatch(MoeError):
    """Trunk, gate or mixture of the client are not what is served; the message names both."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Unauthenticated(MoeError):
    """The routers want the token of a tenant, and the one given is none."""

    code = grpc.StatusCode.UNAUTHENTICATED


class Overloaded(MoeError):
    """The routers shed load for as long as the deadline allowed to try."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(MoeError):
    """Nobody could answer within the deadline; the message says what was tried."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(MoeError):
    """No answer within the deadline."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class MalformedAnswer(MoeError):
    """A router answered with something that does not fit the question."""

    code = grpc.StatusCode.DATA_LOSS


class Repinned(MoeError):
    """Sessions of the call lost versions of experts or gates, which their KV caches are of.

    `experts` are, by session, the experts whose version is gone, `gates` the gates. The sessions
    themselves go on.
    """

    code = grpc.StatusCode.ABORTED

    def __init__(
        self,
        message: str,
        experts: Mapping[str, Sequence[str]],
        epoch: int = 0,
        gates: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__(message, epoch=epoch)
        self.experts = experts
        self.gates = gates or {}


class Closed(MoeError):
    """The client was closed, before or while this request was under way."""

    code = grpc.StatusCode.CANCELLED


_BY_CODE: dict[grpc.StatusCode, type[MoeError]] = {
    kind.code: kind
    for kind in (
        InvalidRequest,
        NotFound,
        Mismatch,
        Unauthenticated,
        Overloaded,
        Unavailable,
        DeadlineExceeded,
    )
}
_BY_NUMBER: dict[Any, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def from_code(code: grpc.StatusCode, message: str, epoch: int = 0) -> MoeError:
    """Return the exception for a status; MoeError itself for a code without a class here."""
    return _BY_CODE.get(code, MoeError)(message, code=code, epoch=epoch)


def from_number(code: int, message: str, epoch: int = 0) -> MoeError:
    """Return the exception for a status whose code came as a number."""
    return from_code(_BY_NUMBER.get(code, grpc.StatusCode.UNKNOWN), message, epoch)
