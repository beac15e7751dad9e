"""Writes the dashboards into the chart: `python -m dashboards`; with `--check` it only compares.

Ends with 1 where a file is not as it would be written, or is of no dashboard.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from dashboards.boards import BOARDS
from dashboards.drawing import draw
from dashboards.places import FOLDER


def drawn() -> Mapping[str, str]:
    """Return the text of each file."""
    return {f"{board.name}.json": draw(board) for board in BOARDS}


def stale(folder: Path, wanted: Mapping[str, str]) -> list[str]:
    """Return the names of files that are missing, other, or too many."""
    found = {path.name: path.read_text() for path in folder.glob("*.json")}
    return sorted(
        name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)
    )


def write(folder: Path, wanted: Mapping[str, str]) -> None:
    """Have these files in the folder, and no others."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in stale(folder, wanted):
        if name in wanted:
            (folder / name).write_text(wanted[name])
        else:
            (folder / name).unlink()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    if not parser.parse_args().check:
        write(FOLDER, drawn())
        return 0
    for name in (names := stale(FOLDER, drawn())):
        print(f"{name} is not as python -m dashboards writes it", file=sys.stderr)
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
