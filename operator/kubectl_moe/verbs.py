"""Carries out a verb; each is imported when it is asked for, as a person who rolls back waits."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from kubectl_moe.health import Exit
from kubectl_moe.names import UsageError
from kubectl_moe.session import Session


def carry_out(args: Namespace, session: Session) -> Exit:
    """Do what the command line asks for. Raises what its verb raises, and UsageError."""
    if getattr(args, "watch", False) and args.output not in ("text", "wide"):
        text = f"--watch draws again and again; -o {args.output} is printed once"
        raise UsageError(text)
    return _verb(args.verb)(args, session)


def _verb(name: str) -> Callable[[Namespace, Session], Exit]:
    match name:
        case "get":
            from kubectl_moe.get import get

            return get
        case "status":
            from kubectl_moe.status import status

            return status
        case "top":
            from kubectl_moe.top import top

            return top
        case "history":
            from kubectl_moe.chronicle import history

            return history
        case "diff":
            from kubectl_moe.chronicle import diff

            return diff
        case "routing":
            from kubectl_moe.routing import routing

            return routing
        case "baseline":
            from kubectl_moe.baseline import baseline

            return baseline
        case "set":
            from kubectl_moe.set_version import set_version

            return set_version
        case "lint":
            from kubectl_moe.lint import lint

            return lint
        case "completion":
            from kubectl_moe.completion import completion

            return completion
        case "version":
            from kubectl_moe.version import version

            return version
    from kubectl_moe.override import override

    return override
