"""Gates: where rows go, how even that is, and what a candidate would choose."""

from __future__ import annotations

from typing import Final

from dashboards.panels import ONE_IS_GOOD, Board, Look, Query, Row, panel
from dashboards.queries import quantile, rate, select, top
from dashboards.variables import EXPERTS, GATE, LAYER, OF_ONE_MIXTURE
from moe_core.metrics import Family
from moe_operator import metrics as operator
from moe_router import metrics as router

_GATE: Final = 'gate=~"$gate"'
_OF_GATES: Final = 'kind="Gate",name=~"$gate"'
_LAYER: Final = (_GATE, 'layer=~"$layer"')
_EXPERT: Final = 'expert=~"$expert"'
_CELL: Final = (*_LAYER, _EXPERT)
_VERSION: Final = ("gate", "version")
_NAME: Final = "{{gate}} {{version}}"
_ON_TRIAL: Final = "while no version of a gate is in the shadow"
_NO_BASELINE: Final = "where no baseline is of the version that is served"
_MOST: Final = 512
_HEAT: Final = (
    (0, "transparent"),
    (0.05, "blue"),
    (0.15, "yellow"),
    (0.3, "orange"),
    (0.5, "red"),
)


def _share(part: Family, whole: Family, *by: str, where: tuple[str, ...] = _LAYER) -> str:
    return f"{rate(part, *by, where=where)} / {rate(whole, *by, where=where)}"


_CELLS: Final = rate(router.CELL_PAIRS, "layer", "expert", where=_CELL)
_FAILED: Final = top(
    20, _share(router.GATE_FAILURES, router.GATE_REQUESTS, *_VERSION, where=(_GATE,))
)
_PAIRS: Final = rate(router.EXPERT_PAIRS, "expert", where=(_GATE, _EXPERT))
_ALL: Final = rate(router.LAYER_PAIRS, "layer", where=_LAYER)

_MAP: Final = Row(
    "Where rows go",
    (
        panel(
            "Share of each layer's pairs, layer × expert",
            "Of the (row, slot) pairs of a layer, the share of each expert. Beyond 512 cells "
            "routers tell only of those farthest from an even share, or whose share moved most "
            "(MOE_METRICS_DETAIL=Full: of all); the 512 largest are shown.",
            "percentunit",
            Query(top(_MOST, f"{_CELLS} / on (layer) group_left () {_ALL}"), "Share"),
            steps=(
                (0, "transparent"),
                (0.05, "blue"),
                (0.15, "yellow"),
                (0.3, "orange"),
                (0.5, "red"),
            ),
            look=Look.MATRIX,
            width=24,
        ),
        panel(
            "Busiest experts",
            "Share of all pairs, over all layers.",
            "percentunit",
            (
                top(
                    20,
                    f"{_PAIRS} / on () group_left () {rate(router.LAYER_PAIRS, where=(_GATE,))}",
                ),
                "{{expert}}",
            ),
            steps=((0.3, "yellow"), (0.5, "red")),
            width=12,
        ),
        panel(
            "Rows by layer",
            "Rows that gates chose for; all layers of a model get as many.",
            "rowsps",
            (top(20, rate(router.LAYER_ROWS, "layer", where=_LAYER)), "{{layer}}"),
            width=12,
        ),
    ),
)

_EVEN: Final = Row(
    "How even it is",
    (
        panel(
            "Imbalance, worst layers",
            "Pairs of the most loaded expert over those of the mean one, in the last whole "
            "minute; 1 is even.",
            "short",
            (
                top(10, f"max by (layer) ({select(router.IMBALANCE, *_LAYER)})"),
                "layer {{layer}}",
            ),
            steps=((2, "yellow"), (4, "red")),
            empty="where no rows came in the last whole minute",
        ),
        panel(
            "Entropy of the load, lowest layers",
            "Entropy of the experts' shares of the pairs in bits; log2 of the number of experts "
            "where all are alike, falling where routing collapses.",
            "short",
            (
                f"bottomk(10, min by (layer) ({select(router.LOAD_ENTROPY, *_LAYER)}))",
                "layer {{layer}}",
            ),
            steps=((0, "red"), (1, "yellow"), (2, "green")),
            empty="where no rows came in the last whole minute",
        ),
        panel(
            "Entropy of a gate's choice",
            "Mean entropy of the probabilities in bits, of rows that a router applied the gate to.",
            "short",
            (f"bottomk(20, {_share(router.LAYER_ENTROPY, router.LAYER_SCORED, *_VERSION)})", _NAME),
            steps=((0, "red"), (0.5, "yellow"), (1, "green")),
            empty="where clients apply the gate themselves",
        ),
        panel(
            "Overflow, worst layers",
            "Share of the pairs that a capacity of 1.2 k T / E would drop; none is dropped.",
            "percentunit",
            (
                top(10, _share(router.LAYER_OVERFLOW, router.LAYER_PAIRS, "layer")),
                "layer {{layer}}",
            ),
            steps=((0.2, "yellow"), (0.4, "red")),
        ),
        panel(
            "Gate weight lost",
            "Share of the gate's weight that was answered by a degraded rung; what the budget of "
            "maxDegradedPercent counts.",
            "percentunit",
            (top(20, _share(router.GATE_LOST, router.GATE_MASS, *_VERSION, where=(_GATE,))), _NAME),
            steps=((0.01, "yellow"), (0.25, "red")),
        ),
        panel(
            "Loaded everywhere",
            "1 where every router has loaded a version of a gate.",
            "none",
            (f"bottomk(20, min by (gate, version) ({select(router.GATES_READY, _GATE)}))", _NAME),
            steps=ONE_IS_GOOD,
            look=Look.STATES,
        ),
    ),
)

_SHIFT: Final = Row(
    "Against the baseline",
    (
        panel(
            "Shift of the routing, worst layers",
            "Population stability index of the last window against the baseline of the Gate's "
            "spec.drift; by convention more than 0.25 is a large shift.",
            "short",
            (
                top(10, f"max by (gate, layer, context) ({select(operator.PSI, *_LAYER)})"),
                "{{gate}} layer {{layer}} {{context}}",
            ),
            steps=((0.1, "yellow"), (0.25, "red")),
            empty=_NO_BASELINE,
        ),
        panel(
            "What chance would give",
            "Mean of the same index where nothing has shifted, by how many sessions were seen.",
            "short",
            (
                top(10, f"max by (gate, layer, context) ({select(operator.PSI_CHANCE, *_LAYER)})"),
                "{{gate}} layer {{layer}} {{context}}",
            ),
            empty=_NO_BASELINE,
        ),
        panel(
            "Beyond a limit",
            "Conditions of Gates that hold: Drifting, Collapsed, Overflowing.",
            "none",
            (
                f"max by (name, condition) ({select(operator.ALARM, _OF_GATES)})",
                "{{name}} {{condition}}",
            ),
            steps=((0, "green"), (1, "red")),
            look=Look.STATES,
            empty="where no Gate has spec.drift",
        ),
    ),
)

_TRIAL: Final = Row(
    "Candidate against stable",
    (
        panel(
            "Requests",
            "Requests of live sessions that a version chose for.",
            "reqps",
            (top(20, rate(router.GATE_REQUESTS, *_VERSION, where=(_GATE,))), _NAME),
        ),
        panel(
            "Failed share",
            "Those of them that got no answer.",
            "percentunit",
            (
                top(
                    20,
                    _share(router.GATE_FAILURES, router.GATE_REQUESTS, *_VERSION, where=(_GATE,)),
                ),
                _NAME,
            ),
            steps=((0.001, "yellow"), (0.01, "red")),
        ),
        panel(
            "Latency, p99",
            "Time of requests that a version on trial chose for.",
            "s",
            (top(20, quantile(0.99, router.GATE_LATENCY, *_VERSION, where=(_GATE,))), _NAME),
            steps=((0.25, "yellow"), (1, "red")),
            empty="while no version of a gate is on trial",
        ),
        panel(
            "Overlap in the shadow, lowest layers",
            "Mean Jaccard index of the experts that candidate and stable choose for the same "
            "row; 1 is the same.",
            "percentunit",
            (
                f"bottomk(10, {_share(router.SHADOW_OVERLAP, router.SHADOWED_ROWS, 'layer')})",
                "layer {{layer}}",
            ),
            steps=((0, "red"), (0.5, "yellow"), (0.8, "green")),
            empty=_ON_TRIAL,
        ),
        panel(
            "Divergence in the shadow, highest layers",
            "Mean Kullback-Leibler divergence of the candidate from stable, in bits.",
            "short",
            (
                top(10, _share(router.SHADOW_DIVERGENCE, router.SHADOWED_ROWS, "layer")),
                "layer {{layer}}",
            ),
            steps=((0.25, "yellow"), (1, "red")),
            empty=_ON_TRIAL,
        ),
        panel(
            "Shadow rows",
            "Live rows that candidate and stable were compared on.",
            "rowsps",
            (top(20, rate(router.SHADOWED_ROWS, *_VERSION, where=_LAYER)), _NAME),
            empty=_ON_TRIAL,
        ),
    ),
)

ROUTING: Final = Board(
    "routing",
    "Gate and routing",
    "Where gates send rows: by layer and expert, how even it is, and a candidate against stable.",
    (*OF_ONE_MIXTURE, GATE, LAYER, EXPERTS),
    (_MAP, _EVEN, _SHIFT, _TRIAL),
)
