"""The reference of `moe`, `docs/reference/moe.md`, made of its parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from moe_artifacts.arguments import Commands, build_parser
from moe_tuning.arguments import Verbs, add_verbs
from tests.reference.markdown import MADE, code, page, prose, table

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "moe.md"
_HEAD: Final = f"""\
# moe

{MADE}

Exit codes: 0 done, 1 refused or failed (the last line says why), 2 a wrong command line, 5 where \
`moe diff` finds a difference."""


def text() -> str:
    """Return the page as it is to be."""
    return page([_HEAD, *(line for each in commands().items() for line in _command(*each))])


def commands() -> Mapping[str, argparse.ArgumentParser]:
    """Return the parser of each command of `moe`."""

    def run(_: argparse.Namespace) -> int:
        raise NotImplementedError

    verbs = partial(add_verbs, verbs=Verbs(*[run] * len(Verbs._fields)))
    parser = build_parser(Commands(run, run, run, run), verbs)
    (found,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    choices: Mapping[str, argparse.ArgumentParser] = found.choices
    return choices


def arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return what a parser takes, without --help and what it hides."""
    hidden = (argparse.SUPPRESS, None)
    taken = (a for a in parser._actions if not isinstance(a, argparse._HelpAction))
    return [action for action in taken if action.help not in hidden]


def wording(action: argparse.Action) -> str:
    """Return an argument's help as `--help` has it."""
    return (action.help or "") % vars(action)


def _command(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from ("", f"## moe {name}", prose(parser.description or ""))
    rows = ((_named(action), prose(_told(action))) for action in arguments(parser))
    yield from table(("argument", "what"), rows)
    if parser.epilog:
        yield from ("", "```", parser.epilog.strip("\n"), "```")


def _named(action: argparse.Action) -> str:
    value = action.metavar or ("" if action.nargs == 0 else action.dest.upper())
    if not isinstance(value, str):
        value = " ".join(value)
    many = " ..." if action.nargs == "+" else ""
    if action.choices is not None:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    return code(" ".join([*action.option_strings[-1:], f"{value}{many}"]).strip())


def _told(action: argparse.Action) -> str:
    needed = action.required and action.option_strings
    return f"{wording(action)}{' (required)' if needed else ''}"
