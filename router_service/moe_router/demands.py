"""What the policy of a gate asks of the requests to which it is applied. Pure.

What cannot be done is refused with the reason, never done by half.
"""

from __future__ import annotations

from collections.abc import Iterable

from moe_core.policy import Kind, Policy
from moe_core.rows import GateRow, GateVariant
from moe_router.refusal import Code, Refused
from moe_router.sequences import Sequence


def check_route(gate: GateRow, sequences: Iterable[Sequence]) -> None:
    """Raise Refused unless each sequence gives what its version of the gate needs."""
    for index, sequence in enumerate(sequences):
        policy, name = sequence.gate.policy, f"sequences[{index}]"
        if policy.kind is Kind.EXPERT_CHOICE and not sequence.whole:
            raise Refused(
                Code.FAILED_PRECONDITION,
                f"{name}.whole is not set; gate {gate.name!r} chooses by {policy.kind}, where a "
                "row's experts depend on the rows after it: each message must have all rows of "
                "its sequences, and say so",
            )
        known = policy.contexts.names if policy.contexts is not None else ()
        if sequence.context and sequence.context not in known:
            names = ", ".join(known) or "none"
            raise Refused(
                Code.INVALID_ARGUMENT,
                f"{name}.context is {sequence.context!r:.80}; version {sequence.gate.version!r} "
                f"of gate {gate.name!r} knows: {names}",
            )


def check_dispatch(
    gate: GateRow, variants: Iterable[GateVariant], sequences: Iterable[Sequence]
) -> None:
    """Raise Refused where only a router can apply a gate, or is asked to change what was chosen."""
    for variant in variants:
        if why := routed_only(variant.policy):
            raise Refused(
                Code.FAILED_PRECONDITION,
                f"version {variant.version!r} of gate {gate.name!r} has {why}, which routers "
                "apply: use Route, not Dispatch",
            )
    for index, sequence in enumerate(sequences):
        if sequence.context:
            raise Refused(
                Code.INVALID_ARGUMENT,
                f"sequences[{index}].context is {sequence.context!r:.80}; it is for Route: in "
                "Dispatch the caller has applied the gate",
            )


def routed_only(policy: Policy) -> str:
    """Return what of a policy callers of Dispatch cannot apply; empty where they can."""
    if policy.kind is Kind.EXPERT_CHOICE:
        return f"the policy {policy.kind}"
    if policy.capacity is not None:
        return "a capacityFactor"
    return "seeded noise" if policy.noise_seed is not None else ""
