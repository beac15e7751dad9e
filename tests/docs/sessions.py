"""Reads what a page shows of a terminal, and compares it with what a command prints.

Blocks of the language `console` are sessions: lines that begin with `$ ` are typed, what follows
up to the next one is what is printed. Everything is compared word by word, however many spaces are
between, but

- a line `...` stands for any number of lines, and `...` at the end of a line for any words;
- ages (48s, 3m20s) are alike, and so are numbers that stand alone, 0 excepted: nothing failed is
  not something failed;
- five letters or digits at the end of a name, which Kubernetes makes up, are alike;
- what `kubectl apply` says is done: created, configured, unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.docs.pages import blocks

ANY: Final = "..."
_PROMPT: Final = "$ "
_ALIKE: Final = (
    (re.compile(r"(\d+[dhms])+"), "AGE"),
    (re.compile(r"\(?(?!0$)\d+(\.\d+)?(/s\))?"), "NUMBER"),
    (re.compile(r"created|configured|unchanged"), "DONE"),
)
_MADE_UP: Final = re.compile(r"-[a-z0-9]{5}$")


@dataclass(frozen=True, slots=True)
class Step:
    """A command, what it is to print, and where the page says so."""

    command: str
    printed: tuple[str, ...]
    line: int


def steps(page: str) -> Iterator[Step]:
    """Give the commands of all sessions of a page. Raises ValueError for output before any."""
    for block in blocks(page):
        if block.language == "console":
            yield from _steps(block.lines, block.line)


def _steps(lines: Sequence[str], begin: int) -> Iterator[Step]:
    command, at, printed = "", begin, list[str]()
    for number, line in enumerate(lines, start=begin + 1):
        if line.startswith(_PROMPT):
            if command:
                yield Step(command, tuple(printed), at)
            command, at, printed = line.removeprefix(_PROMPT), number, []
        elif command:
            printed.append(line)
        else:
            raise ValueError(f"line {number} is printed before anything was typed")
    if command:
        yield Step(command, tuple(printed), at)


def alike(shown: Sequence[str], printed: Sequence[str]) -> bool:
    """Return whether what was printed is what is shown."""
    if not shown:
        return not printed
    if shown[0] == ANY:
        return any(alike(shown[1:], printed[i:]) for i in range(len(printed) + 1))
    return bool(printed) and _same_line(shown[0], printed[0]) and alike(shown[1:], printed[1:])


def _same_line(shown: str, printed: str) -> bool:
    wanted, found = _words(shown), _words(printed)
    if wanted and wanted[-1] == ANY:
        wanted = wanted[:-1]
        found = found[: len(wanted)]
    return wanted == found


def _words(line: str) -> list[str]:
    return [_plain(word) for word in line.split()]


def _plain(word: str) -> str:
    for pattern, name in _ALIKE:
        if pattern.fullmatch(word):
            return name
    return _MADE_UP.sub("-NAME", word)
