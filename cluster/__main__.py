"""`python -m cluster COMMAND`: the local cluster and what goes into it, step by step.

Puts the parts together and turns what goes wrong into one message and an exit status.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from cluster import commands, environment
from cluster.places import Places
from cluster.progress import Progress, StepFailed

ROOT = Path(__file__).resolve().parent.parent

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

COMMANDS: Mapping[str, tuple[Callable[[Places, Progress], None], str]] = {
    "venv": (environment.ensure, "have .venv as requirements.lock says"),
    "binaries": (commands.binaries, "have the programs that tests without a cluster start"),
    "up": (commands.up, "have this checkout's cluster running"),
    "images": (commands.build_images, "build the programs' images and load them"),
    "install": (commands.install_all, "install the operator, and make a namespace for mixtures"),
    "down": (commands.down, "take away what this checkout made, but not the shared cache"),
    "purge": (commands.purge, "take away everything, the shared cache too"),
    "status": (commands.status, "say what there is"),
}


def main(arguments: Sequence[str]) -> int:
    """Run one command; 0 done, 1 failed, 2 wrong usage, 130 or 143 interrupted."""
    parser = argparse.ArgumentParser(prog="python -m cluster", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, (_, text) in COMMANDS.items():
        subparsers.add_parser(name, help=text, description=text)
    text = "run a program; take away afterwards what was not there before"
    subparsers.add_parser("during", help=text).add_argument("program", nargs=argparse.REMAINDER)
    text = "make one namespace that mixtures can live in"
    subparsers.add_parser("namespace", help=text).add_argument("name")
    chosen = parser.parse_args(arguments)
    for number in _STOPPING:
        signal.signal(number, _stop)
    try:
        places = Places.of(ROOT, os.environ)
        return _run(chosen, places, Progress(places.logs / f"{chosen.command}.log"))
    except (StepFailed, ValueError, FileNotFoundError) as failed:
        print(f"error: {failed}", file=sys.stderr)
        return 1


def _run(chosen: argparse.Namespace, places: Places, progress: Progress) -> int:
    if chosen.command == "during":
        return commands.during(places, progress, chosen.program)
    if chosen.command == "namespace":
        commands.namespace(places, chosen.name, progress)
    else:
        COMMANDS[chosen.command][0](places, progress)
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    """Leave as after an exception, so that everything is taken back on the way out.

    Nothing interrupts that again: neither this program nor what it starts from here on.
    """
    for each in _STOPPING:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
