"""The faults of the chaos suite: how each begins, how it is known to have taken effect, its end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

from moeops.v1.router_pb2 import LinkState
from tests.chaos import wire
from tests.chaos.faults import (
    Corrupt,
    Delay,
    Fault,
    Garbage,
    Healthy,
    NotFinite,
    Reset,
    Swallow,
)
from tests.chaos.house import House


@dataclass(frozen=True)
class Act:
    """One fault. `strike` returns when it is proven to have taken effect."""

    name: str
    strike: Callable[[House], None]
    end: Callable[[House], None]
    final: bool = False  # nothing can be done with the worker afterwards


def _stop(it: House) -> None:
    it.victim.signal(signal.SIGSTOP)
    it.wait(lambda: it.victim_state() == LinkState.SILENT, "the worker is silent")


def _go_on(it: House) -> None:
    it.victim.signal(signal.SIGCONT)
    it.wait(lambda: it.victim_state() == LinkState.LIVE, "the worker speaks again")


def _kill(it: House) -> None:
    it.victim.kill()
    it.wait(lambda: it.victim_state() == LinkState.CONNECTING, "its link is down")


def _on_link(make: Callable[[], Fault], count: int, *, ejected: bool) -> Callable[[House], None]:
    def strike(it: House) -> None:
        it.link.fault = make()
        it.wait(lambda: it.link.struck >= count, f"{count} frames were struck")
        if ejected:
            it.wait(lambda: it.metric("ejected_workers") == 1, "the worker is left alone")

    return strike


def _on_wire(fault: wire.Fault, count: int) -> Callable[[House], None]:
    def strike(it: House) -> None:
        before = it.wire.struck
        it.wire.fault = fault
        it.wait(lambda: it.wire.struck >= before + count, f"{count} packets were struck")

    return strike


def _cut(it: House) -> None:
    it.wire.fault = wire.cut
    it.wait(lambda: it.victim_state() == LinkState.SILENT, "the worker is silent")


def _mend(it: House) -> None:
    it.wire.fault = wire.healthy
    it.wait(lambda: it.victim_state() == LinkState.LIVE, "the worker is heard again")


def _swallow(it: House) -> None:
    it.ask(600)  # of one worker and size 64 answers must be known before one of it is late
    it.link.fault = Swallow()
    it.wait(lambda: it.metric("hedges_total") > 0, "another worker is asked as well")


def _delay(it: House) -> None:
    it.link.fault = Delay(seconds=0.1)
    it.wait(lambda: it.link.struck >= 2, "two answers were struck")
    it.wait(lambda: it.metric("late_workers") == 1, "the other one is asked first")


def _heal(it: House) -> None:
    it.link.fault = Healthy()


ACTS = (
    Act("SIGSTOP", _stop, _go_on),
    Act("a reset in mid-frame, 1 in 10", _on_link(lambda: Reset(10), 8, ejected=True), _heal),
    Act("garbage for answers", _on_link(Garbage, 5, ejected=True), _heal),
    Act("NaN for answers", _on_link(NotFinite, 3, ejected=True), _heal),
    Act("1 % of frames corrupt", _on_link(lambda: Corrupt(0.01), 3, ejected=False), _heal),
    Act("no answers, heartbeats", _swallow, _heal),
    Act("answers 0.1 s late", _delay, _heal),
    Act("SIGKILL", _kill, lambda it: None, final=True),
)

# Of the network between router and worker.
WIRED = (
    Act("packets 20 ms late", _on_wire(wire.Slow(0.02), 200), _mend),
    Act("2 % of packets lost", _on_wire(wire.Lossy(0.02), 10), _mend),
    Act("the wire is cut, half-open", _cut, _mend),
)
