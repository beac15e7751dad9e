"""The reference of all metrics, `docs/metrics.md`, made of what the programs describe.

After a wanted change: `python -m tests.reference.metrics` writes it anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from moe_core import process_metrics
from moe_core.metrics import Family
from moe_operator import metrics as operator
from moe_router import metrics as router
from moe_worker import metrics as worker

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"

PROGRAMS: Mapping[str, tuple[Family, ...]] = {
    "Router": router.FAMILIES,
    "Worker": worker.FAMILIES,
    "Operator": operator.FAMILIES,
    "Every process": process_metrics.FAMILIES,
}

_HEAD = """\
# Metrics

Made by `python -m tests.reference.metrics` of what the programs describe; do not edit it by hand.

Routers (port 7002), workers (7102) and operators (8081) answer `GET /metrics`, in OpenMetrics 1.0 \
for who asks for it and else in Prometheus' text format. Pods name the port `metrics`. Values are \
read when somebody asks, from counters that are kept anyway; counters begin at zero with the \
process and never fall while it lives. Ratios are from 0 to 1, times in seconds. In OpenMetrics \
the durations of requests and stages of a router, and queue delay and compute duration of a \
worker, name the last [traced](how-to/trace-a-request.md) request of each bucket, as exemplars.

`version` is the name of a version; where two artifacts of one expert or gate have the same name, \
`@` and the first digits of the digest follow. Routers tell of the versions that the table names, \
and of the target of the last rollout also after its end: what is taken back within seconds would \
else never be seen. `expert` is the id, `mixture_namespace` the namespace of the Mixture: \
Prometheus sets `namespace` to that of the pod asked.

## How many series
What is many is rolled up. `MOE_METRICS_DETAIL=Full` (or `--metrics-detail Full`) tells of each \
expert of each layer; set it in `env` of a Mixture's `routers` or `workers`. A router \
has 115 of its own (requests, stages, links, the process), one for each gate version that says \
whether it is loaded, and over 58 layers of 256 experts, each failing for one cause and nothing on \
trial:

| experts | by default | Full |
|---|---|---|
| 256, each over all 58 layers, one gate | 2,010 | 16,794 |
| 14,848, each of one layer, 58 gates | 3,774 | 18,558 |

A router of a mixture with tenants tells one more, and 22 of each tenant, of whom there are at \
most 64; one of a mixture in which an expert has onCold: Wait tells 24 more. An expert on trial \
adds at most 62. A gate on trial adds 43, ten for each layer, and one for each of its experts. \
A worker with one expert has 69, and two more for each layer with Full. An operator has 45 of its \
own; one that leads tells 15 of each Mixture, 6 of each Expert and 1 of each Gate at rest, and at \
most 19 of a rollout under way. A Gate with spec.drift adds \
up to four, and two for each layer, and each context of it, that its baseline has; an Expert with \
spec.health up to two. Tests count these.
"""


def page() -> str:
    """Return the page as it is to be."""
    return "".join([_HEAD, *(part for name in PROGRAMS for part in _program(name))])


def _program(name: str) -> Iterator[str]:
    yield f"\n## {name}\n| metric | kind | labels | what | series |\n|---|---|---|---|---|\n"
    for family in PROGRAMS[name]:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        told = family.names[0] if len(family.names) == 1 else family.name
        yield f"| `{told}` | {family.kind} | {labels} | {family.help} | {family.series} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
