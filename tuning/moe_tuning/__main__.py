"""`moe`: artifacts made and checked, and topologies changed. Puts the pieces together.

The tools that need torch are imported when one of them is run. Exit codes are those of
`moe_artifacts`, and 5 where `moe diff` finds a difference.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from moe_artifacts.__main__ import main as run_artifacts
from moe_tuning.arguments import Verbs, add_verbs
from moe_tuning.diff import diff


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    verbs = Verbs(_prune, _merge, _grow, _finetune, _dense, _diff)
    return run_artifacts(argv, more=partial(add_verbs, verbs=verbs))


def _prune(given: argparse.Namespace) -> int:
    from moe_tuning import commands

    return commands.prune(given)


def _merge(given: argparse.Namespace) -> int:
    from moe_tuning import commands

    return commands.merge(given)


def _grow(given: argparse.Namespace) -> int:
    from moe_tuning import commands

    return commands.grow(given)


def _finetune(given: argparse.Namespace) -> int:
    from moe_tuning import commands

    return commands.finetune(given)


def _dense(given: argparse.Namespace) -> int:
    from moe_tuning import commands

    return commands.dense(given)


def _diff(given: argparse.Namespace) -> int:
    return diff(given.a, given.b, tuple(given.artifacts))


if __name__ == "__main__":
    sys.exit(main())
