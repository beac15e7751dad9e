"""Where a request goes next: cases by name, and what never happens."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_client import retry
from moe_client.errors import (
    DeadlineExceeded,
    Mismatch,
    MoeError,
    Overloaded,
    Unavailable,
    from_code,
)
from moe_client.retry import Fail, Health, Lost, Progress, Refused, Send, Setback, Silent

A, B, C = "a:1", "b:1", "c:1"
ALL_LIVE = {A: Health.LIVE, B: Health.LIVE, C: Health.LIVE}


def refused(address: str, code: grpc.StatusCode, after_s: float = 0.0) -> Refused:
    return Refused(address, from_code(code, "no"), after_s)


def lost(address: str, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> Lost:
    return Lost(address, code, "reset")


@pytest.mark.parametrize(
    ("health", "tried", "setback", "addresses", "delayed"),
    [
        pytest.param(
            {A: Health.DOWN, B: Health.LIVE}, {A}, lost(A), {B}, False, id="lost: another at once"
        ),
        pytest.param(
            {A: Health.SILENT, B: Health.LIVE}, {A}, Silent(A), {B}, False, id="silent: another"
        ),
        pytest.param(
            ALL_LIVE,
            {A},
            refused(A, grpc.StatusCode.UNAVAILABLE),
            {B, C},
            False,
            id="refused: another at once",
        ),
        pytest.param(
            {A: Health.LIVE, B: Health.DOWN},
            {A},
            refused(A, grpc.StatusCode.UNAVAILABLE),
            {A},
            True,
            id="refused by the only live one: it again, later",
        ),
        pytest.param(
            ALL_LIVE,
            {A, B, C},
            refused(C, grpc.StatusCode.UNAVAILABLE),
            {A, B, C},
            True,
            id="refused by all: a new round, later",
        ),
        pytest.param({A: Health.SILENT}, {A}, Silent(A), {A}, True, id="silent and alone: later"),
        pytest.param({A: Health.DOWN}, {A}, lost(A), {A}, True, id="lost and alone: later"),
    ],
)
def test_what_follows_a_setback(
    health: dict[str, Health],
    tried: set[str],
    setback: Setback,
    addresses: set[str],
    delayed: bool,
) -> None:
    progress, step = retry.after(Progress("s", frozenset(tried), 1), setback, health, 0.5)
    assert isinstance(step, Send)
    assert step.address in addresses
    assert (step.delay_s > 0) is delayed
    assert progress.sent == 2
    assert progress.last is not None


@pytest.mark.parametrize(
    ("setback", "kind"),
    [
        (refused(A, grpc.StatusCode.FAILED_PRECONDITION), Mismatch),
        (refused(A, grpc.StatusCode.INTERNAL), MoeError),
        (lost(A, grpc.StatusCode.UNIMPLEMENTED), MoeError),
        (lost(A, grpc.StatusCode.PERMISSION_DENIED), MoeError),
    ],
)
def test_what_is_not_tried_again(setback: Setback, kind: type[MoeError]) -> None:
    _, step = retry.after(Progress("s", frozenset({A}), 1), setback, ALL_LIVE, 0.0)
    assert isinstance(step, Fail)
    assert type(step.error) is kind


def test_a_hint_is_the_least_that_is_waited() -> None:
    setback = refused(A, grpc.StatusCode.RESOURCE_EXHAUSTED, after_s=3.0)
    for health in ({A: Health.LIVE}, ALL_LIVE):
        _, step = retry.after(Progress("s", frozenset({A}), 1), setback, health, 0.0)
        assert isinstance(step, Send)
        assert step.delay_s >= 3.0


def test_the_end_tells_the_last_refusal_or_that_there_was_none() -> None:
    silent = Progress("s", frozenset({A}), 1)
    error = retry.expired(silent, 2.0)
    assert isinstance(error, DeadlineExceeded)
    assert str(error) == "DEADLINE_EXCEEDED: no answer from a:1 within 2 s"
    refusal = from_code(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", 7)
    error = retry.expired(Progress("s", frozenset({A}), 3, 2, refusal), 2.0)
    assert isinstance(error, Overloaded)
    assert str(error) == "RESOURCE_EXHAUSTED: full (after 3 tries within 2 s) (epoch 7)"


healths = st.dictionaries(
    st.text("abc", min_size=1, max_size=3), st.sampled_from(list(Health)), min_size=1, max_size=5
)
SETBACKS: dict[str, Callable[[str], Setback]] = {
    "refused": lambda address: refused(address, grpc.StatusCode.UNAVAILABLE),
    "lost": lost,
    "silent": Silent,
}
setbacks = st.sampled_from(sorted(SETBACKS))


@given(healths, st.lists(setbacks, max_size=12), st.text(max_size=4), st.floats(0, 0.999))
def test_a_round_tries_every_live_router_before_any_wait(
    health: dict[str, Health], kinds: list[str], session: str, jitter: float
) -> None:
    progress, step = retry.first(Progress(session), health)
    live = {address for address, state in health.items() if state is Health.LIVE}
    if live:
        assert step.address in live
    asked = {step.address}
    for kind in kinds:
        progress, after = retry.after(progress, SETBACKS[kind](step.address), health, jitter)
        assert isinstance(after, Send)
        if after.delay_s == 0:
            assert after.address in live - asked
        else:
            assert live <= asked
            asked = set()
        step = after
        asked.add(step.address)
    assert progress.sent == len(kinds) + 1
    assert isinstance(retry.expired(progress, 1.0), Unavailable | DeadlineExceeded)


@given(healths, st.text(max_size=4))
def test_a_session_stays_with_its_router(health: dict[str, Health], session: str) -> None:
    chosen = retry.choose(health, session, ())
    for other in health:
        if other != chosen:
            fewer = {a: h for a, h in health.items() if a != other}
            assert retry.choose(fewer, session, ()) == chosen


@given(st.integers(0, 10_000), st.floats(0, 0.999))
def test_waiting_is_bounded_and_grows(rounds: int, jitter: float) -> None:
    wait = retry.backoff(rounds, jitter)
    assert retry.FIRST_BACKOFF_S / 2 <= wait <= retry.LONGEST_BACKOFF_S
    assert retry.backoff(rounds + 1, jitter) >= wait
