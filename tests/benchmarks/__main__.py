"""`make bench`: every benchmark of this folder, one after another."""

from __future__ import annotations

from tests.benchmarks import dispatch, failover, gate_shadow, scaling, scrapes, verdicts


def main() -> None:
    """Run them with their defaults."""
    for number, benchmark in enumerate(
        (dispatch, gate_shadow, failover, scrapes, verdicts, scaling)
    ):
        print("\n" * bool(number) + (benchmark.__doc__ or "").partition("\n")[0] + "\n", flush=True)
        benchmark.main(())


if __name__ == "__main__":
    main()
