"""The operator: who leads, whether looks are timely, what goes no further by itself."""

from __future__ import annotations

from typing import Final

from dashboards.panels import ANY_IS_BAD, LISTED, ONE_IS_GOOD, ZERO_IS_BAD, Board, Look, Row, panel
from dashboards.queries import TOLD_MIXTURE, quantile, rate, select, top, total
from dashboards.variables import OF_MIXTURES
from moe_core import process_metrics as process
from moe_operator import metrics as operator

_INSTANCE: Final = "{{instance}}"
_OURS: Final = 'controller="mixture"'
_PROCESS: Final = {family.name: family for family in process.FAMILIES}

_LEADING: Final = Row(
    "Who leads",
    (
        panel(
            "Leaders",
            "Operators that hold the Lease: exactly one.",
            "none",
            (f"sum ({select(operator.LEADS)})", "leaders"),
            steps=((0, "red"), (1, "green"), (2, "red")),
            look=Look.NUMBER,
            width=6,
        ),
        panel(
            "Operators",
            "Operators that are scraped; with one, nobody takes over at once.",
            "none",
            (f"count ({select(operator.LEADS)})", "operators"),
            steps=ZERO_IS_BAD,
            look=Look.NUMBER,
            width=6,
        ),
        panel(
            "Leadership",
            "Which operator leads (1).",
            "none",
            (f"max by (instance) ({select(operator.LEADS)})", _INSTANCE),
            steps=ONE_IS_GOOD,
            look=Look.STATES,
            width=12,
        ),
    ),
)

_LOOKS: Final = Row(
    "Looks",
    (
        panel(
            "Looks by result",
            "Looks at mixtures; requeue is one planned on an old view, to be planned anew.",
            "ops",
            (rate(operator.RECONCILES, "result", where=(_OURS,)), "{{result}}"),
        ),
        panel(
            "Failed looks",
            "Looks that ended in an error; they are tried again.",
            "ops",
            (rate(operator.RECONCILE_ERRORS, "instance", where=(_OURS,)), _INSTANCE),
            steps=ANY_IS_BAD,
        ),
        panel(
            "Time of a look",
            "From its start to its last write.",
            "s",
            *((quantile(q, operator.WORKED, where=(_OURS,)), f"p{q * 100:g}") for q in (0.5, 0.99)),
            steps=((1, "yellow"), (10, "red")),
        ),
        panel(
            "Mixtures that wait",
            "Mixtures in the queue.",
            "none",
            (total(operator.DEPTH, "instance", where=(_OURS,)), _INSTANCE),
            steps=((10, "yellow"), (100, "red")),
        ),
        panel(
            "Time in the queue",
            "From an event until a look begins.",
            "s",
            *((quantile(q, operator.QUEUED, where=(_OURS,)), f"p{q * 100:g}") for q in (0.5, 0.99)),
            steps=((1, "yellow"), (10, "red")),
        ),
        panel(
            "Events and retries",
            "Mixtures put into the queue, and looks to be tried again.",
            "ops",
            (rate(operator.ADDS, where=(_OURS,)), "events"),
            (rate(operator.RETRIES, where=(_OURS,)), "retries"),
        ),
        panel(
            "Busy",
            "Looks under way, of those that may be at once.",
            "percentunit",
            (
                f"{total(operator.ACTIVE, 'instance', where=(_OURS,))} / "
                f"{total(operator.WORKERS, 'instance', where=(_OURS,))}",
                _INSTANCE,
            ),
            steps=((0.7, "yellow"), (0.95, "red")),
        ),
        panel(
            "Processor time",
            "Processors that operators use.",
            "none",
            (
                f"{rate(_PROCESS['process_cpu_seconds'], 'job', 'instance')} "
                f"and on (job, instance) {select(operator.LEADS)}",
                _INSTANCE,
            ),
            steps=((0.5, "yellow"), (0.9, "red")),
        ),
        panel(
            "Memory",
            "Resident memory of operators; it grows with objects.",
            "bytes",
            (
                f"{total(_PROCESS['process_resident_memory_bytes'], 'job', 'instance')} "
                f"and on (job, instance) {select(operator.LEADS)}",
                _INSTANCE,
            ),
            steps=((536_870_912, "yellow"), (966_367_641, "red")),
        ),
    ),
)

_OBJECTS: Final = Row(
    "What it looks after",
    (
        panel(
            "Ends of rollouts",
            "Rollouts that ended, by outcome and reason.",
            "ops",
            (rate(operator.ENDED, "kind", "outcome", "reason"), "{{kind}} {{outcome}} {{reason}}"),
            width=12,
            empty="until a rollout ends under this operator",
        ),
        panel(
            "Steps under way",
            "Step of each rollout; 0 is in the dark.",
            "none",
            (
                f"max by (kind, name, version) ({select(operator.STEP)})",
                "{{kind}} {{name}} {{version}}",
            ),
            (
                f"max by (kind, name, version) ({select(operator.STEPS)})",
                "{{kind}} {{name}} {{version}}: last",
            ),
            width=12,
            empty="while nothing is rolled out",
        ),
        panel(
            "Time in the step",
            "How long a rollout has been in its step; a paused one is marked in the next panel.",
            "s",
            (
                f"time() - max by (kind, name, version) ({select(operator.STEP_BEGAN)})",
                "{{kind}} {{name}} {{version}}",
            ),
            steps=((3_600, "yellow"), (86_400, "red")),
            width=12,
            empty="while nothing is rolled out",
        ),
        panel(
            "Paused",
            "Rollouts that a person paused, or that want evidence (1).",
            "none",
            (
                f"max by (kind, name, version) ({select(operator.PAUSED)})",
                "{{kind}} {{name}} {{version}}",
            ),
            steps=ANY_IS_BAD,
            look=Look.STATES,
            width=12,
            empty="while nothing is rolled out",
        ),
        panel(
            "Objects that go no further by themselves",
            "Experts and Gates whose condition Progressing is False, by its reason.",
            "none",
            (top(50, total(operator.STUCK, *TOLD_MIXTURE, "kind", "name", "reason")), "Objects"),
            steps=LISTED,
            look=Look.TABLE,
            width=24,
            empty="where all goes on",
        ),
    ),
)

OPERATOR: Final = Board(
    "operator",
    "Operator",
    "Who leads, whether looks are timely, and what the operator looks after.",
    OF_MIXTURES,
    (_LEADING, _LOOKS, _OBJECTS),
)
