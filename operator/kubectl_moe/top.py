"""`kubectl moe top`: what experts bear, read from what routers heard of their workers."""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Final

from kubectl_moe import draw, follow
from kubectl_moe.advice import moe
from kubectl_moe.asking import ask
from kubectl_moe.expert_loads import Borne, Seen, borne, cells, ordered, titles
from kubectl_moe.health import Exit
from kubectl_moe.names import resource
from kubectl_moe.session import Routers, Session, find
from kubectl_moe.tree import EXPERT_LABEL
from kubectl_moe.window import LOOK_S, WATCHED_S, Rolling, Taken

WINDOW_S: Final = 2.0
_NO_VERSION: Final = ("0" * 64,)  # routers are asked for no version's own counters
_UTIL: Final = titles(wide=False).index("UTIL")


def top(args: Namespace, session: Session) -> Exit:
    """Show loads, once or until interrupted."""
    mixture = ""
    if args.mixture:
        mixture = find(args.mixture, session.cluster, "Mixture")["metadata"]["name"]
    with closing(session.reach()) as routers:
        rolling = Rolling(lambda: _take(mixture, session, routers), session.clock)
        if args.watch:
            window_s = args.window or WATCHED_S
            follow.redraw(
                lambda: _screen(rolling.lately(window_s), mixture, args, session),
                session.clock,
                session.out,
                LOOK_S,
            )
        taken = rolling.once(args.window or WINDOW_S)
    shown = _shown(taken, mixture, args)
    if args.output == "name":
        for name in dict.fromkeys(one.expert for one in shown):
            session.print(resource({"kind": "Expert", "metadata": {"name": name}}))
    elif args.output in ("json", "yaml"):
        session.show(_data(taken, shown), args.output)
    else:
        session.say(_head(taken, mixture))
        session.print(_table(shown, args, session))
        if shown:
            session.advise([moe(f"status ex/{shown[0].expert}", "its versions and pods")])
    return Exit.HEALTHY


def _take(mixture: str, session: Session, routers: Routers) -> Seen:
    cluster = session.cluster
    readings, silent = ask(cluster, routers, mixture, _NO_VERSION)
    at = session.clock.now()
    experts, deployments = cluster.list("Expert"), cluster.list("Deployment", EXPERT_LABEL)
    pods = cluster.list("Pod", EXPERT_LABEL)
    return Seen(at, experts, deployments, pods, readings, silent)


def _shown(taken: Sequence[Taken[Seen]], mixture: str, args: Namespace) -> list[Borne]:
    found = borne([each.what for each in taken], mixture)
    return ordered(found, args.sort_by)[: args.limit]


def _screen(taken: Sequence[Taken[Seen]], mixture: str, args: Namespace, session: Session) -> str:
    """Return what fits the terminal, where there is one, and how much does not."""
    shown, room = _shown(taken, mixture, args), None
    head = _head(taken, mixture)
    if args.limit is None and session.out.isatty():
        taken_up = head.count("\n") + 4  # titles, what is left out, and the line of the cursor
        room = max(shutil.get_terminal_size().lines - taken_up, 1)
    text = f"{head}\n{_table(shown[:room], args, session)}"
    left = len(shown[room:]) if room is not None else 0
    return f"{text}\n{left} more; --limit shows them" if left else text


def _head(taken: Sequence[Taken[Seen]], mixture: str) -> str:
    last = taken[-1].what
    count = len(last.readings)
    some = "1 router" if count == 1 else f"{count} routers"
    head = f"{mixture or 'all mixtures'}: heard by {some}, last {_window(taken):.0f} s"
    return "\n".join([head, *(f"not counted: {why}" for why in last.silent)])


def _table(shown: Sequence[Borne], args: Namespace, session: Session) -> str:
    wide = args.output == "wide"
    rows = [list(cells(one, wide=wide)) for one in shown]
    if session.colour:
        for one, row in zip(shown, rows, strict=True):
            row[_UTIL] = _marked(row[_UTIL], one)
    return draw.table(titles(wide=wide), rows)


def _marked(text: str, one: Borne) -> str:
    """Colour a utilization that leaves little room, or none."""
    busy = one.load.utilization if one.load else 0.0
    code = "31" if busy >= 0.9 else "33" if busy >= 0.7 else ""
    return f"\x1b[{code}m{text}\x1b[0m" if code else text


def _data(taken: Sequence[Taken[Seen]], shown: Sequence[Borne]) -> dict[str, Any]:
    last = taken[-1].what
    return {
        "routers": len(last.readings),
        "notCounted": list(last.silent),
        "windowSeconds": round(_window(taken), 3),
        "versions": [one.to_json() for one in shown],
    }


def _window(taken: Sequence[Taken[Seen]]) -> float:
    return taken[-1].what.at - taken[0].what.at
