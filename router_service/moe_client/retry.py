"""Decides where a request goes next, and when; it sends nothing and knows no clock.

A router that falls silent or breaks is left at once while another one is live; after a round in
which every live router was tried, the caller backs off. A session keeps to one router as long as
it can (rendezvous hashing), so that sessions spread over routers and stay put.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import grpc

from moe_client.errors import DeadlineExceeded, MoeError, Unavailable, from_code

FIRST_BACKOFF_S = 0.02
LONGEST_BACKOFF_S = 0.5
SILENT_BACKOFF_S = 0.5
"""Before a request is repeated to a router that is only silent: it may just be starved."""

RETRIED = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED})
"""Answers that another try may turn into rows."""

ABSENT = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
"""Ends of a single question that say only that nobody was there to answer it."""

FATAL_TO_STREAM = frozenset(
    {
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)
"""Ends of a stream that no other try would change."""


class Health(StrEnum):
    """What is known of a router: LIVE until seen otherwise."""

    LIVE = "Live"
    SILENT = "Silent"
    DOWN = "Down"


@dataclass(frozen=True, slots=True)
class Refused:
    """The router answered with a failure."""

    address: str
    error: MoeError
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Lost:
    """The stream ended before the answer."""

    address: str
    code: grpc.StatusCode
    message: str


@dataclass(frozen=True, slots=True)
class Silent:
    """Nothing came from the router for a while; the answer may still come."""

    address: str


Setback = Refused | Lost | Silent


@dataclass(frozen=True, slots=True)
class Progress:
    """What a request has met so far; `tried` are the routers of this round."""

    session: str
    tried: frozenset[str] = frozenset()
    sent: int = 0
    rounds: int = 0
    last: MoeError | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """Send to `address` after `delay_s`."""

    address: str
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Fail:
    """Tell the caller."""

    error: MoeError


def first(progress: Progress, health: Mapping[str, Health]) -> tuple[Progress, Send]:
    """Return where a new request goes."""
    return _sent(progress, choose(health, progress.session, ()), 0.0)


def after(
    progress: Progress, setback: Setback, health: Mapping[str, Health], jitter: float
) -> tuple[Progress, Send | Fail]:
    """Return what follows a setback. `jitter` in [0, 1) spreads the callers that back off."""
    error = _error(setback)
    if error.code not in RETRIED:
        return progress, Fail(error)
    progress = replace(progress, last=error)
    address = choose(health, progress.session, progress.tried)
    fresh = address not in progress.tried and health[address] is Health.LIVE
    hint = setback.retry_after_s if isinstance(setback, Refused) else 0.0
    if fresh:
        return _sent(progress, address, hint)
    floor = SILENT_BACKOFF_S if isinstance(setback, Silent) else 0.0
    delay = max(hint, floor, backoff(progress.rounds, jitter))
    progress = replace(progress, tried=frozenset(), rounds=progress.rounds + 1)
    return _sent(progress, choose(health, progress.session, ()), delay)


def expired(progress: Progress, timeout_s: float) -> MoeError:
    """Return the error of a request whose deadline has come: the last refusal, if there was one."""
    tries = f"{progress.sent} {'try' if progress.sent == 1 else 'tries'}"
    if progress.last is None:
        routers = ", ".join(sorted(progress.tried))
        return DeadlineExceeded(f"no answer from {routers} within {timeout_s:g} s")
    message = f"{progress.last.message} (after {tries} within {timeout_s:g} s)"
    return type(progress.last)(message, code=progress.last.code, epoch=progress.last.epoch)


def choose(health: Mapping[str, Health], session: str, avoid: Collection[str]) -> str:
    """Return a router: live and not avoided ones first, then those not avoided, then any."""

    def rank(address: str) -> tuple[bool, bool, bytes]:
        score = hashlib.sha256(f"{address}\0{session}".encode()).digest()
        return health[address] is Health.LIVE, address not in avoid, score

    others = [address for address in health if address not in avoid]
    return max(others or health, key=rank)


def backoff(rounds: int, jitter: float) -> float:
    """Return seconds to wait after a round in vain: doubling, half of it spread by `jitter`."""
    longest: float = min(FIRST_BACKOFF_S * 2 ** min(rounds, 16), LONGEST_BACKOFF_S)
    return longest * (0.5 + jitter / 2)


def _sent(progress: Progress, address: str, delay_s: float) -> tuple[Progress, Send]:
    tried = progress.tried | {address}
    return replace(progress, tried=tried, sent=progress.sent + 1), Send(address, delay_s)


def _error(setback: Setback) -> MoeError:
    match setback:
        case Refused(_, error):
            return error
        case Lost(address, code, message) if code in FATAL_TO_STREAM:
            return from_code(code, f"router {address}: {message}")
        case Lost(address, _, message):
            return Unavailable(f"router {address}: {message}")
        case Silent(address):
            return Unavailable(f"router {address} is silent")
