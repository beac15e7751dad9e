"""One expert: its versions side by side, the candidate against stable, and its pods."""

from __future__ import annotations

from typing import Final

from dashboards.panels import ANY_IS_BAD, ZERO_IS_BAD, Board, Look, Query, Row, panel
from dashboards.queries import TOLD_MIXTURE, quantile, rate, select, top, total
from dashboards.variables import EXPERT as VARIABLE
from dashboards.variables import OF_ONE_MIXTURE
from moe_core.metrics import Family
from moe_operator import metrics as operator
from moe_router import metrics as router
from moe_worker import metrics as worker

_ONE: Final = 'expert=~"$expert"'
_OF_EXPERTS: Final = 'kind="Expert"'
_ON_TRIAL: Final = "while no version of the expert is on trial"


def _by_version(family: Family) -> tuple[str, str]:
    return rate(family, "version", where=(_ONE,)), "{{version}}"


def _share(part: Family, whole: Family) -> tuple[str, str]:
    """Return a share by version; both sides are of the one expert."""
    sides = (rate(family, "version", where=(_ONE,)) for family in (part, whole))
    return " / ".join(sides), "{{version}}"


_STATE: Final = Row(
    "Replicas",
    (
        panel(
            "Ready replicas",
            "Ready pods of the stable version; with none the ladder answers.",
            "none",
            (total(operator.EXPERT_READY, *TOLD_MIXTURE, where=(_ONE,)), "{{mixture}}"),
            steps=ZERO_IS_BAD,
            look=Look.NUMBER,
            width=6,
        ),
        panel(
            "Wanted replicas",
            "spec.replicas of the Expert.",
            "none",
            (total(operator.EXPERT_WANTED, *TOLD_MIXTURE, where=(_ONE,)), "{{mixture}}"),
            look=Look.NUMBER,
            width=6,
        ),
        panel(
            "Pods by version",
            "Pods of each version that are ready, and that it is to have now.",
            "none",
            (total(operator.VERSION_READY, "version", where=(_ONE,)), "{{version}} ready"),
            (total(operator.VERSION_WANTED, "version", where=(_ONE,)), "{{version}} wanted"),
            width=12,
        ),
    ),
)

_VERSIONS: Final = Row(
    "Candidate against stable",
    (
        panel(
            "Rows answered",
            "(Row, slot) pairs that each version answered.",
            "rowsps",
            _by_version(router.VERSION_ROWS),
        ),
        panel(
            "Error share",
            "Attempts at a version without a usable answer, of all attempts at it.",
            "percentunit",
            _share(router.VERSION_ERRORS, router.VERSION_REQUESTS),
            steps=((0.001, "yellow"), (0.01, "red")),
            empty="until a version makes its first error; on trial it is 0 until then",
        ),
        panel(
            "Rows that are not finite",
            "NaN or infinity in an answer although what came in was finite.",
            "rowsps",
            _by_version(router.VERSION_NONFINITE),
            steps=ANY_IS_BAD,
        ),
        panel(
            "Mean norm of the answers",
            "Mean L2 norm of the rows that a version answers. A version never changes: where this "
            "does, it gets other rows, or one of its workers computes something else.",
            "short",
            _share(router.VERSION_NORM, router.VERSION_ROWS),
        ),
        panel(
            "Latency of attempts, p50",
            "Time of attempts at versions on trial, on the link and in the worker.",
            "s",
            (quantile(0.5, router.TRIAL_LATENCY, "version", where=(_ONE,)), "{{version}}"),
            steps=((0.1, "yellow"), (0.5, "red")),
            empty=_ON_TRIAL,
        ),
        panel(
            "Latency of attempts, p99",
            "Time of attempts at versions on trial, on the link and in the worker.",
            "s",
            (quantile(0.99, router.TRIAL_LATENCY, "version", where=(_ONE,)), "{{version}}"),
            steps=((0.25, "yellow"), (1, "red")),
            empty=_ON_TRIAL,
        ),
        panel(
            "Overflow of sessions",
            "Share of the pairs of sessions on a version that a capacity of 1.2 k T / E would "
            "drop; none is dropped.",
            "percentunit",
            _share(router.TRIAL_OVERFLOW, router.TRIAL_PAIRS),
            steps=((0.1, "yellow"), (0.3, "red")),
            empty=f"{_ON_TRIAL}, or no session drew one by chance",
        ),
        panel(
            "Shadow rows",
            "Rows of copies that a version on trial answered, only to be counted.",
            "rowsps",
            _by_version(router.SHADOW_ROWS),
            empty=_ON_TRIAL,
        ),
        panel(
            "Shadow errors",
            "Copies without an answer, of all copies.",
            "percentunit",
            _share(router.SHADOW_ERRORS, router.SHADOW_REQUESTS),
            steps=((0.001, "yellow"), (0.01, "red")),
            empty=f"{_ON_TRIAL}, or nothing is copied (shadowPercent)",
        ),
        panel(
            "Errors by cause",
            "Attempts without a usable answer.",
            "ops",
            (
                rate(router.VERSION_ERRORS, "version", "cause", where=(_ONE,)),
                "{{version}} {{cause}}",
            ),
            steps=ANY_IS_BAD,
            empty="until a version makes its first error; on trial it is 0 until then",
        ),
    ),
)

_VERDICT: Final = Row(
    "Rollouts and health of the mixture's experts",
    (
        panel(
            "Weight",
            "Share of new sessions that see the candidate.",
            "percentunit",
            (select(operator.WEIGHT, _OF_EXPERTS), "{{name}} {{version}}"),
            width=12,
            empty="while nothing is rolled out",
        ),
        panel(
            "Verdict",
            "How many findings of the step pass, fail or wait, by tier. One that fails takes the "
            "candidate back.",
            "none",
            Query(f"sum by (name, version, tier, state) ({select(operator.FINDINGS)})", "Findings"),
            look=Look.TABLE,
            width=12,
            empty="while nothing is judged",
        ),
        panel(
            "Beyond a limit",
            "Conditions of Experts that hold: Failing, NormShifted.",
            "none",
            (
                f"max by (name, condition) ({select(operator.ALARM, _OF_EXPERTS)})",
                "{{name}} {{condition}}",
            ),
            steps=((0, "green"), (1, "red")),
            look=Look.STATES,
            empty="where no Expert has spec.health",
        ),
    ),
)

_WORK: Final = Row(
    "Pods of the expert",
    (
        panel(
            "Utilization",
            "Share of time that each worker computes the expert; at 1 rows queue.",
            "percentunit",
            (
                top(20, rate(worker.EXPERT_BUSY, "version", "instance", where=(_ONE,))),
                "{{version}} {{instance}}",
            ),
            steps=((0.7, "yellow"), (0.9, "red")),
        ),
        panel(
            "Rows of a batch",
            "Mean number of rows computed at once.",
            "short",
            _share(worker.EXPERT_ROWS, worker.EXPERT_BATCHES),
        ),
        panel(
            "What answered for it",
            "(Row, slot) pairs chosen for the expert, by the rung of the ladder that answered.",
            "rowsps",
            (rate(router.EXPERT_RUNG_ROWS, "rung", where=(_ONE,)), "{{rung}}"),
        ),
        panel(
            "Load and warm-up",
            "How long the last fetch, verify, load and warm took, the slowest pod of each.",
            "s",
            (
                f"max by (version, stage) ({select(worker.STAGE, _ONE)})",
                "{{version}} {{stage}}",
            ),
            steps=((60, "yellow"), (300, "red")),
            width=12,
        ),
        panel(
            "Phases",
            "Pods by the phase that the expert is in.",
            "none",
            (total(worker.PHASE, "version", "phase", where=(_ONE,)), "{{version}} {{phase}}"),
            width=12,
        ),
    ),
)

EXPERT: Final = Board(
    "expert",
    "Expert",
    "One expert: its versions side by side, the candidate against stable, its verdict, its pods.",
    (*OF_ONE_MIXTURE, VARIABLE),
    (_STATE, _VERSIONS, _VERDICT, _WORK),
)
