"""Whether the experts that a variant of a gate lists can serve; decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moe_core.rows import ExpertRow, GateRow, GateVariant, Role
from moe_operator.reach import Reach
from moe_operator.reason import Reason, Why


def lacks(
    variant: GateVariant,
    layers: Sequence[int],
    before: GateRow | None,
    experts: Mapping[str, ExpertRow],
    reach: Reach,
) -> Why | None:
    """Return which of the listed experts cannot serve; None where all can.

    One that no variant of the gate in service lists must be reached by every router: it may have
    no pods any more.
    """
    unknown = [e for e in variant.experts if e not in experts]
    if unknown:
        return Why(Reason.EXPERTS_MISSING, f"no Expert has the id {', '.join(unknown)}")
    dense = [e for e in variant.experts if experts[e].role is Role.DENSE]
    if dense:
        message = f"{', '.join(dense)} has the role Dense, which stands in: no gate can pick it"
        return Why(Reason.INVALID_SPEC, message)
    anew = set(variant.experts) - set(before.experts if before else variant.experts)
    starting = [
        e
        for e in variant.experts
        if (stable := experts[e].stable) is None or (e in anew and not reach.workers(stable.sha256))
    ]
    if starting:
        names = ", ".join(starting)
        return Why(Reason.EXPERTS_NOT_READY, f"{names} cannot serve yet: {variant.version} waits")
    short = [e for e in variant.experts if not set(layers) <= set(experts[e].layers)]
    if short:
        names = ", ".join(short)
        return Why(Reason.INVALID_SPEC, f"{names} does not serve all layers of this gate")
    return None
