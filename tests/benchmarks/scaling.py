"""`python -m tests.benchmarks.scaling`: how well replicas follow a load, beside HPA and Knative.

Each policy sizes simulated workers under the same loads (see `tests.operator.autoscaling`): a
request takes 50 ms, a worker 10 s to start, and the target is a busy share of 60%. Under and over
are replica-seconds missing and to spare, of those that an oracle has, which knows the load and
needs no time; a reversal is a raise within five minutes after a decrease, or the other way round.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from moe_operator.autoscaling import Autoscaling
from tests.operator.autoscaling.policies import Hpa, Knative, Ours
from tests.operator.autoscaling.traces import TRACES
from tests.operator.autoscaling.workers import HIGHEST, Policy, run

SHARE = 0.6
POLICIES: dict[str, Callable[[], Policy]] = {
    "moeops, 60% busy": lambda: Ours(Autoscaling(1, HIGHEST, utilization=SHARE)),
    "moeops, 10 ms of delay": lambda: Ours(Autoscaling(1, HIGHEST, delay_ms=10)),
    "HPA": lambda: Hpa(SHARE),
    "Knative": lambda: Knative(SHARE),
}
HEAD = "{:<14}{:<26}{:>9}{:>9}{:>10}{:>12}{:>16}"
ROW = "{:<14}{:<26}{:>8.1f}%{:>8.1f}%{:>10}{:>12}{:>8.0f} /{:>6.0f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1, help="of the requests (1)")
    given = parser.parse_args(arguments)
    head = ("load", "policy", "under", "over", "changes", "reversals", "wait p50/p99, ms")
    print(HEAD.format(*head))
    for load, make in TRACES.items():
        for name, policy in POLICIES.items():
            came = run(policy, make(), SHARE, given.seed)
            waits = came.wait_ms(50), came.wait_ms(99)
            figures = came.under_percent, came.over_percent, came.changes, came.reversals(300)
            print(ROW.format(load, name, *figures, *waits), flush=True)


if __name__ == "__main__":
    main()
