"""`python -m tests.benchmarks.verdicts`: how often rollouts end wrongly, and what it takes to tell.

Whole rollouts, simulated on losses that the example model is recorded to have; see
`tests.operator.statistics`. Prints shares of rollouts, and medians of what they saw until the end:
sequences of the golden set, or sessions of both arms, and the bytes in these.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from tests.operator.statistics.recording import TOKENS, record
from tests.operator.statistics.rollouts import (
    FEW,
    OFTEN,
    Canary,
    End,
    Ended,
    Traffic,
    ever_better,
    median_of,
    once_only,
    percent,
    repeat,
    roll_out,
    run_canary,
)

HARM = 0.05
GOLDEN_SIZES = (64, 128, 192, 256, 384, 512)
HEAD = "{:<44}{:>12}{:>12}{:>10}{:>12}{:>14}"
ROW = "{:<44}{:>11.1f}%{:>11.1f}%{:>9.1f}%{:>12,}{:>14,}"

Case = tuple[str, Callable[[np.random.Generator], Ended]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rollouts", type=int, default=1_000, help="of each kind (1000)")
    given = parser.parse_args(arguments)
    recording = record()
    for name, drift in recording.drift.items():
        bits = recording.bits[name].mean() - recording.bits["stable"].mean()
        print(f"{name}: outputs drift by {drift:.0%}, loss {bits:+.3f} bits per byte")
    stable = float(recording.bits["stable"].mean())
    traffic = {
        "identical": Traffic.of(recording, recording.bits["stable"]),
        f"{HARM:+} bits": Traffic.of(recording, recording.harmed(HARM)),
        "at the margin of 5%": Traffic.of(recording, recording.harmed(0.05 * stable)),
        "better": Traffic.of(recording, recording.bits["better"]),
        "damaged": Traffic.of(recording, recording.bits["damaged"]),
    }
    print(HEAD.format("\nversion: evidence", "promoted", "taken back", "waiting", "seen", "bytes"))
    for name, run in _cases(traffic):
        _print(name, repeat(given.rollouts, 1, run))


def _cases(traffic: dict[str, Traffic]) -> Iterator[Case]:
    narrow, wide = Canary(most=60_000), Canary(5.0, step_sessions=500, look=50, most=20_000)
    identical, harmed = traffic["identical"], traffic[f"{HARM:+} bits"]
    yield "identical: golden set of 512", partial(_golden, identical, 512)
    yield "identical: outcomes, margin 1%", partial(run_canary, identical, narrow)
    yield "identical: outcomes, margin 5%", partial(run_canary, identical, wide)
    once = partial(run_canary, identical, OFTEN, judge=once_only)
    yield "identical: each look as if the only one", once
    for least in (10, 30):
        sharp = partial(run_canary, identical, FEW, judge=ever_better(least))
        yield f"identical: gain at 0.025, {least} sessions", sharp
    at = traffic["at the margin of 5%"]
    yield "at the margin of 5%: outcomes", partial(run_canary, at, wide)
    for size in GOLDEN_SIZES:
        yield f"{HARM:+} bits: golden set of {size}", partial(_golden, harmed, size)
    yield f"{HARM:+} bits: outcomes, margin 1%", partial(run_canary, harmed, narrow)
    for name in ("better", "damaged"):
        both = partial(_both, traffic[name], wide)
        yield f"{name}: golden set of 512, then outcomes, 5%", both


def _golden(traffic: Traffic, sequences: int, rng: np.random.Generator) -> Ended:
    return roll_out(traffic, rng, sequences=sequences)


def _both(traffic: Traffic, canary: Canary, rng: np.random.Generator) -> Ended:
    return roll_out(traffic, rng, canary=canary)


def _print(name: str, ended: Sequence[Ended]) -> None:
    seen = median_of(each.sessions or each.sequences for each in ended)
    read = median_of(each.rows or each.sequences * TOKENS for each in ended)
    shares = (percent(ended, end) for end in (End.PROMOTED, End.TAKEN_BACK, End.WAITING))
    print(ROW.format(name, *shares, seen, read), flush=True)


if __name__ == "__main__":
    main()
