"""The status of a Mixture: how its experts, gates and routers stand together."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from moe_operator.conditions import Condition, conditions
from moe_operator.reason import Reason, Why
from moe_operator.spec import MixtureSpec


@dataclass(frozen=True, slots=True)
class Counts:
    """What a mixture has of what it needs."""

    epoch: int
    experts: int
    experts_ready: int
    experts_degraded: int
    experts_starting: int  # of the degraded, those whose pods are only starting
    routers_ready: int
    routers_kept: tuple[str, ...]  # those that started without the API server, and lack it still
    routers_problem: str  # why routers do not come up; empty while they are only starting
    layers_without_gate: tuple[int, ...]
    ignored_env: tuple[str, ...]
    refused: tuple[str, ...]  # child objects that the API server did not take, with its sentence
    under_way: tuple[str, ...]  # objects that something happens to, by name


def mixture_status(mixture: MixtureSpec, counts: Counts, now: datetime) -> dict[str, Any]:
    """Return the status of a Mixture: Ready when every layer is served by experts that are."""
    wanted = mixture.routers.replicas
    ready, degraded = _ready(counts, wanted), _degraded(counts, wanted)
    phase = "Pending" if not ready.holds else "Degraded" if degraded.holds else "Serving"
    return {
        "observedGeneration": mixture.meta.generation,
        "phase": phase,
        "epoch": counts.epoch,
        "experts": f"{counts.experts_ready}/{counts.experts}",
        "routers": f"{counts.routers_ready}/{wanted}",
        "conditions": conditions(mixture.meta, now, (ready, _progressing(counts), degraded)),
    }


def _progressing(counts: Counts) -> Condition:
    if counts.under_way:
        names = ", ".join(counts.under_way)
        return Condition("Progressing", True, Why(Reason.UNDER_WAY, f"under way: {names}"))
    return Condition("Progressing", False, Why(Reason.COMPLETE, "nothing is under way"))


def _ready(counts: Counts, routers: int) -> Condition:
    if counts.experts_ready < counts.experts:
        message = f"{counts.experts_ready} of {counts.experts} experts serve"
        why = Why(Reason.EXPERTS_NOT_READY, message)
    elif counts.layers_without_gate:
        layers = ", ".join(map(str, counts.layers_without_gate))
        why = Why(Reason.GATE_MISSING, f"no gate is served for layer {layers}")
    elif not counts.routers_ready:
        why = Why(Reason.ROUTERS_NOT_READY, f"0 of {routers} routers are ready")
    else:
        message = f"all {counts.experts} experts serve, by epoch {counts.epoch}"
        return Condition("Ready", True, Why(Reason.SERVING, message))
    return Condition("Ready", False, why)


def _degraded(counts: Counts, routers: int) -> Condition:
    if counts.refused:
        return Condition("Degraded", True, Why(Reason.CHILD_REFUSED, counts.refused[0]))
    if counts.experts_degraded:
        message = f"{counts.experts_degraded} of {counts.experts} experts have less than they want"
        starting = counts.experts_starting == counts.experts_degraded
        why = Why(Reason.PODS_NOT_READY if starting else Reason.EXPERTS_DEGRADED, message)
    elif counts.routers_ready < routers:
        message = f"{counts.routers_ready} of {routers} routers are ready"
        why = Why(Reason.PODS_NOT_READY, message)
        if counts.routers_problem:
            why = Why(Reason.ROUTERS_NOT_READY, f"{message}: {counts.routers_problem}")
    elif counts.routers_kept:
        names, count = ", ".join(counts.routers_kept), len(counts.routers_kept)
        message = f"{count} of {routers} routers started by a copy of the table, as no API server"
        why = Why(Reason.TABLE_KEPT, f"{message} answers them: {names}")
    elif counts.ignored_env:
        message = f"env {', '.join(counts.ignored_env)} is set by the operator, not by the Mixture"
        why = Why(Reason.SETTINGS_IGNORED, message)
    else:
        return Condition("Degraded", False, Why(Reason.AS_WANTED, "nothing is missing"))
    return Condition("Degraded", True, why)
