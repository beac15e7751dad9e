"""`make bench`: every benchmark of this folder, one after another."""

from __future__ import annotations

from tests.benchmarks import (
    chaos,
    devices,
    dispatch,
    drift,
    failover,
    gate_shadow,
    router_memory,
    scaling,
    scrapes,
    table_changes,
    tracing,
    verdicts,
)

ALL = (
    dispatch,
    devices,
    gate_shadow,
    failover,
    chaos,
    scrapes,
    tracing,
    router_memory,
    table_changes,
    verdicts,
    scaling,
    drift,
)


def main() -> None:
    """Run them with their defaults."""
    for number, benchmark in enumerate(ALL):
        print("\n" * bool(number) + (benchmark.__doc__ or "").partition("\n")[0] + "\n", flush=True)
        benchmark.main(())


if __name__ == "__main__":
    main()
