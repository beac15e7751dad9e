"""Decides about certificates: when a leaf is made anew, and how an authority follows another.

An authority is exchanged in three steps that no connection notices. The next one is announced, and
everybody believes both; then it vouches for all leaves, and both are still believed; then the old
one is forgotten. Between the steps is time for what is written to reach everybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from moe_operator.certificates import Facts, Pair

AUTHORITY_LIFETIME: Final = timedelta(days=730)
LEAF_LIFETIME: Final = timedelta(days=30)
# The kubelet takes minutes, people who copy an authority by hand longer.
ANNOUNCED: Final = timedelta(days=1)
_LEFT: Final = 3  # what has less than a third of its time left is renewed


class Step(StrEnum):
    """What is to be done with the authority now."""

    KEEP = "Keep"
    ANNOUNCE = "Announce"
    PROMOTE = "Promote"
    FORGET = "Forget"


@dataclass(frozen=True, slots=True)
class Trust:
    """The authority as it is kept. `asked`: a person wants the next step at once."""

    current: Pair
    facts: Facts  # of the current one
    since: datetime  # of the last step
    following: Pair | None = None
    previous: bytes = b""
    asked: bool = False

    @property
    def believed(self) -> bytes:
        """All authorities that count, in PEM; the one that vouches comes first."""
        others = (b"" if self.following is None else self.following.certificate, self.previous)
        return b"".join([self.current.certificate, *others])


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate as it was written last, and the authorities beside it."""

    facts: Facts
    believed: bytes


def authority_step(trust: Trust, now: datetime, given: Pair | None = None) -> Step:
    """Return the one step that is due; `given` is the authority that people want, if they do."""
    if trust.following is not None:
        due = now >= trust.since + ANNOUNCED
        return Step.PROMOTE if due or trust.asked else Step.KEEP
    if trust.previous:
        due = now >= trust.since + LEAF_LIFETIME
        return Step.FORGET if due or trust.asked else Step.KEEP
    if given is not None:
        return Step.KEEP if given.certificate == trust.current.certificate else Step.ANNOUNCE
    return Step.ANNOUNCE if trust.asked or old(trust.facts, now) else Step.KEEP


def taken(trust: Trust, step: Step, now: datetime, made: Pair, facts: Facts) -> Trust:
    """Return the authority after a step; `made` is what follows, once announced, with its facts."""
    match step:
        case Step.KEEP:
            return trust
        case Step.ANNOUNCE:
            return Trust(trust.current, trust.facts, now, following=made)
        case Step.PROMOTE:
            return Trust(made, facts, now, previous=trust.current.certificate)
        case Step.FORGET:
            return Trust(trust.current, trust.facts, now)


def stale(leaf: Leaf | None, names: tuple[str, ...], trust: Trust, now: datetime) -> str:
    """Return why a leaf is to be made anew, in a word or two; empty where it is not."""
    if leaf is None:
        return "not known"
    reasons = {
        "other names": leaf.facts.names != names,
        "another authority": leaf.facts.issuer != trust.facts.key_id,
        "other authorities believed": leaf.believed != trust.believed,
        "soon over": old(leaf.facts, now),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def old(facts: Facts, now: datetime) -> bool:
    """Return whether less than a third of a certificate's time is left."""
    return now >= facts.ends - (facts.ends - facts.begins) / _LEFT
