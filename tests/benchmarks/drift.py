"""`python -m tests.benchmarks.drift`: how soon a shift of traffic is told, and how often wrongly.

The example model's gate on its held-out text, at the defaults of `spec.drift`: see
`tests.operator.drift.example`. PSI is that of the layer that is farthest, in a window full of what
came; rows are of one layer, from the shift on until the alarm.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from examples.tiny.domains import DOMAINS
from moe_operator.drift_spec import DriftSpec
from tests.operator.drift.example import EVEN, Chosen, Mix, Stage, median, shifted

HEAD = "{:<24}{:>10}{:>10}{:>18}{:>18}"
ROW = "{:<24}{:>10.3f}{:>9.0f}%{:>18}{:>18}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="of each shift (20)")
    parser.add_argument("--windows", type=int, default=1000, help="of the same mix (1000)")
    given = parser.parse_args(arguments)
    chosen = Chosen.live()
    stage = Stage.of(chosen, DriftSpec({}))
    per_run = 50
    runs = range(max(given.windows // per_run, 1))
    false = sum(stage.alarms(EVEN, 1000 + seed, per_run) for seed in runs)
    psi = stage.psi(EVEN, 1, stage.settled())
    print(f"same mix: PSI {psi:.3f}; {false} alarms in {len(runs) * per_run} windows", flush=True)
    print(HEAD.format("\nshift", "PSI", "told", "rows, median", "rows, most"))
    for name, mix in _shifts():
        _print(stage, name, mix, given.runs)


def _shifts() -> list[tuple[str, Mix]]:
    parts = [(f"{part:.0%} code", shifted("code", part)) for part in (0.3, 0.5, 0.7)]
    return [*parts, *((f"all {name}", shifted(name, 1.0)) for name in DOMAINS)]


def _print(stage: Stage, name: str, mix: Mix, runs: int) -> None:
    most = 4 * stage.settled()
    rows = [stage.rows_to_alarm(mix, seed, most) for seed in range(runs)]
    told = [count for count in rows if count is not None]
    psi = stage.psi(mix, 1, stage.settled())
    middle = f"{median(rows):,.0f}" if told else "-"
    longest = f"{max(told):,}" if len(told) == len(rows) else "-"
    print(ROW.format(name, psi, 100 * len(told) / len(rows), middle, longest), flush=True)


if __name__ == "__main__":
    main()
