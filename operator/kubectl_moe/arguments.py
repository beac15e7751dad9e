"""The command line of `kubectl moe`: verbs, flags and their help."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import NoReturn

from kubectl_moe.health import Exit

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


TRIED = "expert: NAME; gate: gate/NAME"

# From name and text of a verb to what its flags are added to.
Verb = Callable[[str, str], argparse.ArgumentParser]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    common = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    _connection(common)
    top = Parser(
        prog="kubectl moe",
        description="See and steer the experts of mixture-of-experts models.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _connection(top)
    top.set_defaults(request_timeout=10.0)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            parents=[common],
            epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    _looking(verb)
    _deciding(verb)
    return top


def _looking(verb: Verb) -> None:
    """Add the verbs that only look."""
    get = verb("get", "list mixtures, gates, experts and overrides")
    get.add_argument("kind", nargs="?", default="all", help="mixtures, gates, … (default: all)")
    get.add_argument("name", nargs="?", help="only this one")
    _output(get)

    status = verb("status", "show a mixture, a gate or an expert as a tree, down to its pods")
    status.add_argument("target", help="mixture or expert: NAME; gate: gate/NAME")
    status.add_argument("-w", "--watch", action="store_true", help="show changes until interrupted")
    _wait(status)
    _output(status)

    past = verb("history", "list the revisions of an expert or a gate, or the epochs of a mixture")
    past.add_argument("target", help=f"{TRIED}; mixture: mixture/NAME")
    past.add_argument("--revision", metavar="N", help="show this revision or epoch whole")
    _output(past)

    diff = verb("diff", "show what differs between two revisions; ends with 5 if anything does")
    diff.add_argument("target", help=f"{TRIED}; mixture: mixture/NAME")
    diff.add_argument("a", nargs="?", help="revision, version or epoch (default: one before B)")
    diff.add_argument("b", nargs="?", help="the other one (default: the newest)")
    _output(diff)

    routing = verb("routing", "show how the gates of a mixture spread rows over experts")
    routing.add_argument("mixture", help="NAME of the mixture")
    routing.add_argument("--gate", metavar="NAME", help="only this gate")
    routing.add_argument(
        "--layer",
        type=whole(0),
        metavar="N",
        help="the experts of this layer (default: all layers)",
    )
    routing.add_argument(
        "--top", type=whole(1), default=20, metavar="N", help="how many layers or experts (20)"
    )
    routing.add_argument(
        "--window",
        type=duration,
        metavar="D",
        help="what comes in the next D (default: since routers started; with -w the last 10s)",
    )
    routing.add_argument("-w", "--watch", action="store_true", help="again and again")
    _output(routing)


def _deciding(verb: Verb) -> None:
    """Add the verbs that stand for an Override."""
    rollback = verb("rollback", "serve an earlier version or epoch, whatever the spec says")
    rollback.add_argument(
        "--to",
        metavar="WHICH",
        help="version or revision, of a mixture the epoch (default: the one before)",
    )
    resume = verb("resume", "follow the spec again: remove Pause and Serve overrides")
    decisions: tuple[argparse.ArgumentParser, ...] = (
        rollback,
        verb("promote", "make the candidate stable now"),
        verb("abort", "take the candidate back"),
        verb("retry", "try a rollout that was taken back again"),
        verb("pause", "hold a rollout where it is"),
        resume,
    )
    for decision in decisions:
        whole = "; mixture: mixture/NAME" if decision in (rollback, resume) else ""
        decision.add_argument("target", help=f"{TRIED}{whole}")
        decision.add_argument("--reason", default="", help="why, for those who read it later")
        _wait(decision)
        _output(decision)


def _connection(flags: argparse.ArgumentParser) -> None:
    """Add what may stand before the verb or behind it."""
    flags.add_argument("-n", "--namespace", help="namespace (default: that of the context)")
    flags.add_argument("--context", help="context of the kubeconfig")
    flags.add_argument("--kubeconfig", help="kubeconfig (default: KUBECONFIG, ~/.kube/config)")
    flags.add_argument("--request-timeout", type=duration, metavar="D", help="per request (10s)")


def _wait(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--wait", action="store_true", help="until settled; sets the exit code")
    verb.add_argument(
        "--timeout", type=duration, default=600.0, metavar="D", help="of --wait (10m)"
    )


def _output(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("-o", "--output", choices=("text", "json"), default="text", help="form")
