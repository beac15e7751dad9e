"""What is out and what answers instead: replicas against need, rungs over time, recovery."""

from __future__ import annotations

from typing import Final

from dashboards.panels import (
    ANY_IS_BAD,
    LISTED,
    ONE_IS_GOOD,
    ZERO_IS_BAD,
    Board,
    Look,
    Query,
    Row,
    panel,
)
from dashboards.queries import (
    DEGRADED,
    OF_MIXTURE,
    TOLD_MIXTURE,
    rate,
    ratio,
    select,
    top,
    total,
)
from dashboards.variables import OF_MIXTURES
from moe_operator import metrics as operator
from moe_router import metrics as router

_TOLD: Final = "{{mixture_namespace}}/{{mixture}}"
_ROUTED: Final = "{{namespace}}/{{mixture}}"
_READY: Final = total(operator.EXPERT_READY, *TOLD_MIXTURE, "expert")
_WANTED: Final = total(operator.EXPERT_WANTED, *TOLD_MIXTURE, "expert")
_MIXTURES_READY: Final = select(operator.READY, 'kind="Mixture"')
_MISSING: Final = f"clamp_min({_WANTED} - {_READY}, 0)"
_BY: Final = f"by ({', '.join(TOLD_MIXTURE)})"
# The operator's names of a mixture in the terms of a router's.
_STORED: Final = (
    f"label_replace(max {_BY} ({select(operator.EPOCH)}), "
    '"namespace", "$1", "mixture_namespace", "(.+)")'
)
_BEHIND: Final = (
    f"max by (namespace, mixture) ({_STORED}) - on (namespace, mixture) "
    f"min by (namespace, mixture) ({select(router.EPOCH)})"
)

_NEED: Final = Row(
    "Replicas against need",
    (
        panel(
            "Experts without a pod",
            "Experts that want pods and have none ready: the ladder answers for them.",
            "none",
            (f"sum (({_WANTED} > bool 0) * ({_READY} == bool 0))", "down"),
            steps=ANY_IS_BAD,
            look=Look.NUMBER,
            width=6,
        ),
        panel(
            "Fewest replicas of an expert",
            "The expert with the fewest ready pods, of those that want some.",
            "none",
            (f"min ({_READY} and {_WANTED} > 0)", "fewest"),
            steps=((0, "red"), (1, "yellow"), (2, "green")),
            look=Look.NUMBER,
            width=6,
        ),
        panel(
            "Pods missing",
            "Pods of stable versions that are wanted and not ready.",
            "none",
            (f"sum ({_MISSING})", "missing"),
            steps=ANY_IS_BAD,
            look=Look.NUMBER,
            width=6,
        ),
        panel(
            "Routers ready",
            "Ready routers, of the mixture that has fewest.",
            "none",
            (f"min ({total(operator.ROUTERS_READY, *TOLD_MIXTURE)})", "fewest"),
            steps=ZERO_IS_BAD,
            look=Look.NUMBER,
            width=6,
        ),
        panel(
            "Ready pods by expert, fewest",
            "Ready pods of the stable version; at 1 the next loss is felt.",
            "none",
            (f"bottomk(20, {_READY} and {_WANTED} > 0)", f"{_TOLD} {{{{expert}}}}"),
            steps=((0, "red"), (1, "yellow"), (2, "green")),
            width=12,
        ),
        panel(
            "Pods missing by mixture",
            "Pods of stable versions that are wanted and not ready.",
            "none",
            (f"sum {_BY} ({_MISSING})", _TOLD),
            steps=ANY_IS_BAD,
            width=12,
        ),
    ),
)

_LADDER: Final = Row(
    "What answers instead",
    (
        panel(
            "Rungs",
            "(Row, slot) pairs by the rung that answered. Replica and Stable are whole answers.",
            "rowsps",
            (rate(router.RUNG_ROWS, "rung"), "{{rung}}"),
            width=12,
        ),
        panel(
            "Degraded share",
            "Share of pairs answered by backup, dense expert, the other choices, or nothing.",
            "percentunit",
            (
                top(20, ratio(router.RUNG_ROWS, router.RUNG_ROWS, *OF_MIXTURE, where=(DEGRADED,))),
                _ROUTED,
            ),
            steps=((0.001, "yellow"), (0.05, "red")),
            width=12,
        ),
        panel(
            "Degraded experts, most",
            "Pairs chosen for an expert that a degraded rung answered.",
            "rowsps",
            (
                top(20, rate(router.EXPERT_RUNG_ROWS, "expert", "rung", where=(DEGRADED,))),
                "{{expert}} {{rung}}",
            ),
            steps=ANY_IS_BAD,
            width=12,
            empty="until a row is answered by a degraded rung",
        ),
        panel(
            "Refused for want of an answer",
            "Requests that ended UNAVAILABLE: nobody could answer within the degraded budget.",
            "reqps",
            (rate(router.FAILURES, *OF_MIXTURE, where=('code="UNAVAILABLE"',)), _ROUTED),
            steps=ANY_IS_BAD,
            width=12,
        ),
    ),
)

_RECOVERY: Final = Row(
    "Recovery",
    (
        panel(
            "Mixtures ready",
            "Whether the condition Ready of each Mixture holds.",
            "none",
            (
                f"max {_BY} ({_MIXTURES_READY})",
                _TOLD,
            ),
            steps=ONE_IS_GOOD,
            look=Look.STATES,
            width=12,
        ),
        panel(
            "Routers behind",
            "Epochs that the slowest router is behind the table as stored; above 0 for moments "
            "only.",
            "none",
            (_BEHIND, _ROUTED),
            steps=ANY_IS_BAD,
            width=12,
        ),
        panel(
            "Degraded objects",
            "Mixtures and Experts that serve with less than was asked for, 50 at most.",
            "none",
            Query(
                top(
                    50,
                    f"{total(operator.DEGRADED, *TOLD_MIXTURE, 'kind', 'name')} > 0",
                ),
                "Degraded",
            ),
            steps=LISTED,
            look=Look.TABLE,
            width=12,
            empty="where all is whole",
        ),
        panel(
            "Silent links",
            "Links of routers to workers that nothing was heard on for 250 ms.",
            "none",
            (total(router.LINKS, *OF_MIXTURE, where=('state="Silent"',)), _ROUTED),
            steps=ANY_IS_BAD,
            width=6,
        ),
        panel(
            "Workers asked last",
            "Links to workers that others are asked before: unlike their peers, or late.",
            "none",
            (total(router.EJECTED, *OF_MIXTURE), f"{_ROUTED} unlike"),
            (total(router.LATE, *OF_MIXTURE), f"{_ROUTED} late"),
            steps=ANY_IS_BAD,
            width=6,
        ),
    ),
)

FAILOVER: Final = Board(
    "failover",
    "Failover",
    "What is out, what answers in its place, and whether it comes back.",
    OF_MIXTURES,
    (_NEED, _LADDER, _RECOVERY),
)
