"""The parser of the command line, made of the vocabulary."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from kubectl_moe.grammar import Argument
from kubectl_moe.health import Exit
from kubectl_moe.vocabulary import CONNECTION, VERBS

DESCRIPTION = "See and steer the experts of mixture-of-experts models."
EPILOG = """exit codes:
  0  healthy, or done        1  error
  2  degraded or rolled back 3  timed out
  4  paused                  5  diff: they differ
"""


class Parser(argparse.ArgumentParser):
    """Ends with 1 on a wrong command line: 2 means degraded here."""

    def error(self, message: str) -> NoReturn:
        self.print_usage()
        self.exit(Exit.ERROR, f"error: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    common = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    top = Parser(
        prog="kubectl moe",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for argument in CONNECTION:
        _add(top, argument)
        _add(common, argument, suppressed=True)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    for verb in VERBS:
        example = f"example:\n  {verb.example}\n\n" if verb.example else ""
        added = verbs.add_parser(
            verb.name,
            aliases=verb.aliases,
            help=verb.help,
            description=f"{verb.help[0].upper()}{verb.help[1:]}.",
            parents=[common],
            epilog=example + EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for argument in verb.all_arguments:
            _add(added, argument)
        added.set_defaults(verb=verb.name)
    return top


def _add(to: argparse.ArgumentParser, argument: Argument, *, suppressed: bool = False) -> None:
    """Add an argument; one that is suppressed leaves what was said before the verb as it is."""
    default: Any = argparse.SUPPRESS if suppressed else argument.default
    if argument.is_switch:
        default = argparse.SUPPRESS if suppressed else False
        to.add_argument(*argument.names, action="store_true", help=argument.help, default=default)
        return
    more: dict[str, Any] = {"help": argument.help.replace("%", "%%"), "default": default}
    if argument.read is not None:
        more["type"] = argument.read
    if argument.choices:
        more["choices"] = argument.choices
    if argument.metavar:
        more["metavar"] = argument.metavar
    if argument.most is None:
        more["nargs"] = "+" if argument.least else "*"
    elif argument.least == 0:
        more["nargs"] = "?"
        if argument.is_flag:
            more["const"] = ""
    to.add_argument(*argument.names, **more)
