"""Decides what a re-pin means for the call in which it is told: go on, or end with Repinned. Pure.

A session is re-pinned when the version of an expert or a gate that it began with is revoked or
gone. Rows that the old version answered, or chose for, are then in the session's KV cache, or in
the layers of this call that are done; what is computed from them is neither version's. Of an
expert the answer tells; of a gate the client knows when it has to apply another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from moe_client.errors import Repinned
from moe_client.messages import Answer, Rows


class OnRepin(StrEnum):
    """What follows when a session lost its version of an expert or a gate.

    REPREFILL and ABORT end the call with Repinned where rows of the old version are in it;
    `moe_client.generate` takes that, for REPREFILL, to prefill all tokens so far again. CONTINUE
    goes on with the cache as it is. The session's state is marked in any case.
    """

    REPREFILL = "Reprefill"
    CONTINUE = "Continue"
    ABORT = "Abort"


@dataclass(frozen=True, slots=True)
class Told:
    """Versions of experts that sessions lost, and the epoch of the table by which they did."""

    lost: Mapping[str, Sequence[str]]
    epoch: int


def told_by(rows: Rows, answer: Answer) -> Told | None:
    """Return the re-pin that an answer tells of, if it does."""
    each = zip(rows.sequences, answer.outcomes, strict=True)
    lost = {s.session: o.repinned_experts for s, o in each if o.repinned_experts}
    return Told(lost, answer.epoch) if lost else None


def outdated(wish: OnRepin, told: Told | None, answer: Answer) -> Repinned | None:
    """Return what ends a call whose first layer told of a re-pin, or None.

    It has nothing of the lost versions then; but another router, which does not know that table
    yet, would answer by them.
    """
    if told is None or answer.epoch >= told.epoch or wish is OnRepin.CONTINUE:
        return None
    return Repinned(_sentence(told.lost), told.lost, answer.epoch)


def objection(wish: OnRepin, rows: Rows, answer: Answer, *, began_before: bool) -> Repinned | None:
    """Return what ends the call, or None. `began_before`: rows of the sessions were answered
    earlier, in this call or in their cache."""
    told = told_by(rows, answer)
    if told is None or not began_before or wish is OnRepin.CONTINUE:
        return None
    return Repinned(_sentence(told.lost), told.lost, answer.epoch)


def gate_objection(
    wish: OnRepin, lost: Mapping[str, Sequence[str]], epoch: int, *, began_before: bool
) -> Repinned | None:
    """Return what ends the call where sessions, by name, now have other versions of these gates."""
    if not lost or not began_before or wish is OnRepin.CONTINUE:
        return None
    return Repinned(_sentence(lost), {}, epoch, lost)


def _sentence(lost: Mapping[str, Sequence[str]]) -> str:
    session, names = next(iter(lost.items()))
    more = f" (and {len(lost) - 1} more sessions theirs)" if len(lost) > 1 else ""
    return (
        f"session {session} lost its version of {', '.join(names)}{more}: what was computed "
        "with it is worth nothing; prefill all tokens again, as moe_client.generate does"
    )
