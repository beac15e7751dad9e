"""`kubectl moe routing`: what the gates of a mixture choose, read from its routers.

Routers count from their start and remember no moments, so a window is one to come: two readings,
and their difference.
"""

from __future__ import annotations

from argparse import Namespace
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

from kubectl_moe import follow, heat
from kubectl_moe.cluster import Body, ClusterError
from kubectl_moe.gate_loads import Reading, between, total
from kubectl_moe.health import Exit
from kubectl_moe.names import UsageError
from kubectl_moe.routing_view import Routed, digests, routed
from kubectl_moe.session import Routers, Session, find
from kubectl_moe.tree import COMPONENT_LABEL, MIXTURE_LABEL

WATCHED_S: Final = 10.0
_LOOK_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Sight:
    """What there was to see at one moment: of how many seconds, None since routers started."""

    shown: list[Routed]
    routers: int
    window_s: float | None
    silent: Sequence[str]


def routing(args: Namespace, session: Session) -> Exit:
    """Show how rows are spread over experts, once or until interrupted."""
    if args.watch and args.output == "json":
        raise UsageError("--watch draws again and again; -o json is printed once, with --window")
    mixture = find(args.mixture, session.cluster, "Mixture")["metadata"]["name"]
    with closing(session.reach()) as routers:
        look = _Looker(mixture, args, session, routers)
        if args.watch:
            follow.redraw(
                lambda: _text(look.lately(args.window or WATCHED_S), args, session),
                session.clock,
                session.out,
                _LOOK_S,
            )
        sight = look.once(args.window)
    if args.output == "json":
        session.print_json(_json(mixture, sight))
    else:
        session.print(_text(sight, args, session))
    return Exit.HEALTHY


@dataclass(slots=True)
class _Looker:
    """Reads the routers of a mixture, and keeps what it read for as long as a window is."""

    mixture: str
    args: Namespace
    session: Session
    routers: Routers
    _read: deque[tuple[float, tuple[Reading, ...]]] = field(default_factory=deque)

    def once(self, window_s: float | None) -> _Sight:
        """Look: at all that was counted, or at what comes in a window."""
        if window_s is not None:
            self._take()
            self.session.clock.sleep(window_s)
        return self._sight()

    def lately(self, window_s: float) -> _Sight:
        """Look at what came in the last window, or since the first look where that is later."""
        if not self._read:
            self._take()
            self.session.clock.sleep(_LOOK_S)
        now = self.session.clock.now()
        while len(self._read) > 1 and now - self._read[1][0] >= window_s:
            self._read.popleft()
        return self._sight()

    def _sight(self) -> _Sight:
        """Look once more, and compare with the first of what was read before."""
        before = self._read[0] if self._read else None
        table, silent = self._take()
        now, readings = self._read[-1]
        if before is not None:
            readings = between(before[1], readings)
        shown = routed(table, total(readings), self.args.gate, self.args.layer)
        window = None if before is None else now - before[0]
        return _Sight(shown, len(readings), window, silent)

    def _take(self) -> tuple[Body, Sequence[str]]:
        """Read all routers. Raises ClusterError where none answers."""
        cluster = self.session.cluster
        table = cluster.get("RoutingTable", self.mixture)
        selector = f"{MIXTURE_LABEL}={self.mixture},{COMPONENT_LABEL}=router"
        pods = [pod["metadata"]["name"] for pod in cluster.list("Pod", selector) if _runs(pod)]
        if not pods:
            raise ClusterError(f"no router of {self.mixture} is running")
        readings, silent = self.routers.read(pods, digests(table))
        if not readings:
            raise ClusterError(f"no router answers: {'; '.join(silent)}")
        self._read.append((self.session.clock.now(), readings))
        return table, silent


def _runs(pod: Body) -> bool:
    running = pod.get("status", {}).get("phase") == "Running"
    return running and "deletionTimestamp" not in pod["metadata"]


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
