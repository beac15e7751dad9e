"""Prints the part of a lock file that some lists of package names ask for, digests included.

`python pins.py LOCK LIST…`; each list has one name a line. It ends with 1 and says so when the
lock does not have one of them. Needs nothing but Python, so that it can run in an image build.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path


def pins(lock: str, names: Iterable[str]) -> str:
    """Return the lock's entries for those names, in the lock's order.

    Raises KeyError naming those that the lock does not have.
    """
    entries = {
        re.sub(r"[-_.]+", "-", match[1]).lower(): match[0]
        for match in re.finditer(r"^([A-Za-z0-9][\w.-]*)(?:==).*(?:\n .*)*", lock, re.MULTILINE)
    }
    wanted = set(names)
    missing = sorted(wanted - entries.keys())
    if missing:
        raise KeyError(", ".join(missing))
    return "".join(f"{text}\n" for name, text in entries.items() if name in wanted)


def main(lock: str, *lists: str) -> int:
    """Print the entries; 0 when all are there."""
    names = [name for file in lists for name in Path(file).read_text().split()]
    try:
        sys.stdout.write(pins(Path(lock).read_text(), names))
    except KeyError as missing:
        print(f"{lock} does not have {missing.args[0]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
