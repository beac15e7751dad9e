"""`kubectl moe routing`: what the gates of a mixture choose, read from its routers.

Routers count from their start and remember no moments, so a window is one to come: two readings,
and their difference.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from kubectl_moe import follow, heat
from kubectl_moe.advice import moe
from kubectl_moe.asking import ask
from kubectl_moe.cluster import Body
from kubectl_moe.gate_loads import Reading, between, total
from kubectl_moe.health import Exit
from kubectl_moe.routing_view import Routed, digests, routed
from kubectl_moe.session import Routers, Session, find
from kubectl_moe.window import LOOK_S, WATCHED_S, Rolling, Taken


@dataclass(frozen=True, slots=True)
class _Told:
    """The table, and what routers said of the gates that it names."""

    table: Body
    readings: tuple[Reading, ...]
    silent: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Sight:
    """What there was to see at one moment: of how many seconds, None since routers started."""

    shown: list[Routed]
    routers: int
    window_s: float | None
    silent: Sequence[str]


def routing(args: Namespace, session: Session) -> Exit:
    """Show how rows are spread over experts, once or until interrupted."""
    mixture = find(args.mixture, session.cluster, "Mixture")["metadata"]["name"]
    with closing(session.reach()) as routers:
        rolling = Rolling(lambda: _take(mixture, session, routers), session.clock)
        if args.watch:
            window_s = args.window or WATCHED_S
            follow.redraw(
                lambda: _text(_sight(rolling.lately(window_s), args), args, session),
                session.clock,
                session.out,
                LOOK_S,
            )
        sight = _sight(rolling.once(args.window), args)
    if args.output != "text":
        session.show(_json(mixture, sight), args.output)
    else:
        session.print(_text(sight, args, session))
        session.advise([moe(f"top {mixture}", "what that means for the experts' load")])
    return Exit.HEALTHY


def _take(mixture: str, session: Session, routers: Routers) -> _Told:
    table = session.cluster.get("RoutingTable", mixture)
    return _Told(table, *ask(session.cluster, routers, mixture, digests(table)))


def _sight(taken: Sequence[Taken[_Told]], args: Namespace) -> _Sight:
    """Compare what was read last with what was read first."""
    last, readings, window_s = taken[-1], taken[-1].what.readings, None
    if len(taken) > 1:
        readings = between(taken[0].what.readings, readings)
        window_s = last.at - taken[0].at
    shown = routed(last.what.table, total(readings), args.gate, args.layer)
    return _Sight(shown, len(readings), window_s, last.what.silent)


def _text(sight: _Sight, args: Namespace, session: Session) -> str:
    some = "1 router" if sight.routers == 1 else f"{sight.routers} routers"
    when = "start" if sight.window_s is None else f"{sight.window_s:.0f} s"
    parts = [
        f"{args.mixture}: {some}, {'since their' if sight.window_s is None else 'last'} {when}"
    ]
    parts += [f"not counted: {why}" for why in sight.silent]
    for one in sight.shown:
        if args.layer is None:
            parts += ["", heat.heat_map(one, args.top, colour=session.colour)]
        else:
            parts += ["", heat.experts(one, args.layer, args.top)]
    if args.layer is None and any(one.loads for one in sight.shown):
        parts += ["", heat.legend(sight.shown)]
    return "\n".join(parts)


def _json(mixture: str, sight: _Sight) -> dict[str, Any]:
    return {
        "mixture": mixture,
        "routers": sight.routers,
        "notCounted": list(sight.silent),
        "windowSeconds": None if sight.window_s is None else round(sight.window_s, 3),
        "gates": [one.to_json() for one in sight.shown],
    }
