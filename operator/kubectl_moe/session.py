"""One run of the plugin: what it talks to and prints on, and how a target's object is found."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO

from kubectl_moe import draw, follow
from kubectl_moe.advice import Step
from kubectl_moe.cluster import Body, Cluster
from kubectl_moe.gate_loads import Reading
from kubectl_moe.names import Target, UsageError


class Routers(Protocol):
    """Asks router pods what their gates chose and what their workers bear."""

    def read(
        self, pods: Sequence[str], digests: Sequence[str], *, grouped: bool = False
    ) -> tuple[tuple[Reading, ...], tuple[str, ...]]:
        """Return the readings of these pods, and which gave none, and why.

        `grouped`: with pairs by group of sessions, and by what rows are about.
        """
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Session:
    """Where to look, where to print, what time it is; `reach` makes a way to the routers.

    `everywhere` is the same cluster for lists over all namespaces.
    `advises` says whether to tell which command may come next, `flags` what it needs to mean the
    same cluster and namespace.
    """

    cluster: Cluster
    everywhere: Callable[[], Cluster]
    reach: Callable[[], Routers]
    out: TextIO
    progress: TextIO
    clock: follow.Clock
    colour: bool
    advises: bool = True
    flags: str = ""

    def style(self) -> draw.Style:
        return draw.Style(self.colour, datetime.now(UTC))

    def print(self, text: str) -> None:
        print(text, file=self.out)

    def show(self, value: Any, form: str) -> None:
        """Print a value for programs, as JSON or as YAML."""
        text = json.dumps(value, indent=2)
        if form == "yaml":
            import yaml  # most runs print none

            plain = json.loads(text)  # enums and tuples are nothing that YAML knows
            text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).rstrip()
        self.print(text)

    def say(self, text: str) -> None:
        """Tell what was done, beside the output."""
        print(text, file=self.progress)

    def advise(self, steps: Iterable[Step]) -> None:
        """Tell which commands may come next, beside the output."""
        if not self.advises:
            return
        lines = [(f"{step.command}{self.flags}", step.why) for step in steps]
        wide = max((len(command) for command, _ in lines), default=0)
        for number, (command, why) in enumerate(lines):
            self.say(f"{'      ' if number else 'next: '}{command:{wide}}  # {why}")


def coloured(out: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether to use colour: on a terminal that knows it, unless NO_COLOR is set."""
    return out.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def advises(args: Namespace) -> bool:
    """Return whether a person reads the output, who may want to know what comes next."""
    return not args.quiet and getattr(args, "output", "text") in ("text", "wide")


def find(text: str, cluster: Cluster, *kinds: str) -> Body:
    """Return the object that a person names, of one of these kinds; a bare name is the first's.

    Raises UsageError and NotFound.
    """
    target = Target.parse(text)
    kind = target.kind or kinds[0]
    if kind not in kinds:
        wanted = " or ".join(f"{'an' if k == 'Expert' else 'a'} {k.lower()}" for k in kinds)
        raise UsageError(f"{text!r} is a {kind}; this verb takes {wanted}")
    return {**cluster.get(kind, target.name), "kind": kind}
