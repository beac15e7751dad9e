"""What becomes of a gate's policy when its experts change: of groups and of contexts.

Pure. What cannot be is refused in a sentence that says what could.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

from moe_artifacts.errors import Refused
from moe_core.contexts import Context, Contexts
from moe_core.document import InvalidDocument
from moe_core.policy import Groups, Policy

Heirs = Mapping[str, tuple[str, ...]]
"""The next gate's experts in order, each with those whose place it takes: none for a new one."""
_PLACES = Decimal("0.001")


def succeed(
    policy: Policy, experts: Sequence[str], heirs: Heirs, shares: Mapping[str, float] | None = None
) -> Policy:
    """Return the policy of a gate of these heirs. `shares` are how much each expert was used.

    Raises Refused where groups would not be of equal size, or too few experts are left.
    """
    contexts, groups = policy.contexts, policy.groups
    made = replace(
        policy,
        contexts=None if contexts is None else _contexts(contexts, heirs, shares or {}),
        groups=None if groups is None else _groups(groups, experts, heirs),
    )
    try:
        made.check(tuple(heirs), "the gate's policy")
    except InvalidDocument as error:
        raise Refused(f"{len(heirs)} experts would be left: {error}") from None
    return made


def groups_of(policy: Policy, experts: Sequence[str]) -> Sequence[Sequence[str]]:
    """Return the experts by group; all are one where the policy has none."""
    count = 1 if policy.groups is None else policy.groups.count
    size = len(experts) // count
    return [experts[start : start + size] for start in range(0, len(experts), size)]


def _groups(groups: Groups, experts: Sequence[str], heirs: Heirs) -> Groups:
    """Return what groups there are where each heir is in the group of the first it succeeds."""
    count, size = groups.count, len(experts) // groups.count
    if count == 1:
        return groups
    sizes = [0] * count
    for heir, succeeded in heirs.items():
        if not succeeded:
            raise Refused(
                f"{heir} would be one more; the gate has {count} groups of {size} experts, which "
                f"must stay equal: {count} more at once would be right"
            )
        sizes[experts.index(succeeded[0]) // size] += 1
    left = [number for number in sizes if number]
    if len(set(left)) > 1:
        right = ", ".join(str(count * fewer) for fewer in range(1, size))
        raise Refused(
            f"groups of {', '.join(map(str, sizes))} experts would be left; all {count} groups "
            f"must lose as many ({right or 'none'} in all), or some of them every expert ({size})"
        )
    return replace(groups, count=len(left), chosen=min(groups.chosen, len(left)))


def _contexts(contexts: Contexts, heirs: Heirs, shares: Mapping[str, float]) -> Contexts | None:
    """Return contexts whose biases followed the experts; None where none of them has any."""
    known = []
    for context in contexts.known:
        given = dict(context.biases)
        biases = tuple(
            (
                heir,
                _bias([given.get(e, Decimal(0)) for e in olds], [shares.get(e, 1) for e in olds]),
            )
            for heir, olds in heirs.items()
            if any(e in given for e in olds)
        )
        if biases:
            known.append(Context(context.name, biases))
    return replace(contexts, known=tuple(known)) if known else None


def _bias(biases: Sequence[Decimal], shares: Sequence[float]) -> Decimal:
    """Return what experts of these shares have together: log Σ share·exp(bias), Σ share = 1."""
    if len(set(biases)) == 1:
        return biases[0]
    some = [max(share, 1e-9) for share in shares]
    highest = max(biases)
    sums = sum(s * math.exp(b - highest) for s, b in zip(some, biases, strict=True)) / sum(some)
    return (highest + Decimal(math.log(sums))).quantize(_PLACES)
