"""Decides what a re-pin means for the call in which it is told: go on, or end with Repinned. Pure.

A session is re-pinned when the version of an expert that it began with is revoked or gone. Rows
that the old version answered are then in the session's KV cache, or in the layers of this call
that are done; what is computed from them is neither version's.
"""

from __future__ import annotations

from enum import StrEnum

from moe_client.errors import Repinned
from moe_client.messages import Answer, Rows


class OnRepin(StrEnum):
    """What follows when a session lost its version of an expert.

    REPREFILL and ABORT end the call with Repinned where rows of the old version are in it;
    `moe_client.generate` takes that, for REPREFILL, to prefill all tokens so far again. CONTINUE
    goes on with the cache as it is. The session's state is marked in any case.
    """

    REPREFILL = "Reprefill"
    CONTINUE = "Continue"
    ABORT = "Abort"


def objection(wish: OnRepin, rows: Rows, answer: Answer, *, began_before: bool) -> Repinned | None:
    """Return what ends the call, or None. `began_before`: rows of the sessions were answered
    earlier, in this call or in their cache."""
    told = zip(rows.sequences, answer.outcomes, strict=True)
    lost = {s.session: o.repinned_experts for s, o in told if o.repinned_experts}
    if not lost or not began_before or wish is OnRepin.CONTINUE:
        return None
    session, experts = next(iter(lost.items()))
    more = f" (and {len(lost) - 1} more sessions theirs)" if len(lost) > 1 else ""
    message = (
        f"session {session} lost its version of {', '.join(experts)}{more}: what was computed "
        "with it is worth nothing; prefill all tokens again, as moe_client.generate does"
    )
    return Repinned(message, lost, answer.epoch)
