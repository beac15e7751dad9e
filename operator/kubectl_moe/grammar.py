"""What a command line is made of: verbs and their arguments, as data, and how values are read.

The parser, completion and the reference page are all made of it, so that none of them can lag
behind. Pure.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any


class Words(Enum):
    """What may stand for a value, beside fixed choices: mostly names that the cluster knows."""

    NOTHING = auto()
    FILE = auto()
    FOLDER = auto()
    KIND = auto()
    NAME = auto()  # of the kind before it
    MIXTURE = auto()
    GATE = auto()  # of the mixture before it
    TRIED = auto()  # an expert or a gate
    SHOWN = auto()  # an expert, a gate or a mixture
    PAST = auto()  # a version or revision of the target before it, of a mixture an epoch
    NAMESPACE = auto()
    CONTEXT = auto()


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: a flag where its names begin with a dash, else one that has a place.

    `least` and `most` are how many values it takes; a flag that takes none is a switch.
    """

    names: tuple[str, ...]
    help: str
    metavar: str = ""
    read: Callable[[str], Any] | None = None
    choices: tuple[str, ...] = ()
    default: Any = None
    least: int = 1
    most: int | None = 1
    words: Words = Words.NOTHING

    @property
    def is_flag(self) -> bool:
        return self.names[0].startswith("-")

    @property
    def is_switch(self) -> bool:
        return self.most == 0

    @property
    def shown(self) -> str:
        """What stands for the value in help."""
        if self.metavar:
            return self.metavar
        return "|".join(self.choices) if self.choices else self.names[-1].strip("-").upper()


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb. `forms` are those of its output, the one for people first."""

    name: str
    help: str
    arguments: tuple[Argument, ...]
    forms: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    example: str = ""

    @property
    def all_arguments(self) -> tuple[Argument, ...]:
        """Its own arguments, and -o."""
        if len(self.forms) < 2:
            return self.arguments
        output = Argument(
            ("-o", "--output"), "form of what is printed", choices=self.forms, default=self.forms[0]
        )
        return (*self.arguments, output)


def switch(*names: str, help: str) -> Argument:  # noqa: A002  # the word of argparse
    """Return a flag without a value."""
    return Argument(names, help, least=0, most=0)


def duration(text: str) -> float:
    """Return seconds for 90, 90s, 5m or 1h."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 90s, 5m or 1h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def whole(least: int) -> Callable[[str], int]:
    """Return what reads a whole number that is `least` or more."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of {least} or more")
        return int(text)

    return read
