"""What a session is entitled to: its start token, its pins, and which of them were taken away.

Everything here is derived from the token and the table, so that any router says the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moe_core.pins import bucket, pinned, weight_at
from moe_core.table import ExpertRow, Outcome, Rollout, Version
from moe_router.refusal import Code, Refused
from moe_router.view import View

_MAX_TOKEN_BYTES = 256


@dataclass(frozen=True, slots=True)
class Start:
    """When a session began: an epoch, which means something only within one table's uid."""

    uid: str
    epoch: int

    def to_token(self) -> bytes:
        return f"1:{self.uid}:{self.epoch}".encode()

    def known_to(self, view: View) -> bool:
        """Whether a table is of this uid and at least of this epoch."""
        return view.table.uid == self.uid and view.table.epoch >= self.epoch


def read_token(token: bytes, field: str) -> Start:
    """Read what an earlier answer returned. Raises Refused, which names `field`."""
    expected = "it must be empty or exactly what an answer of this mixture returned"
    try:
        text = token.decode("ascii") if len(token) <= _MAX_TOKEN_BYTES else ""
    except UnicodeDecodeError:
        text = ""
    version, _, rest = text.partition(":")
    uid, colon, epoch = rest.rpartition(":")
    if version != "1" or not colon or not (epoch.isdigit() and len(epoch) <= 18):
        shown = token if len(token) <= 60 else token[:57] + b"..."
        raise Refused(Code.INVALID_ARGUMENT, f"{field} is {shown!r}; {expected}")
    return Start(uid, int(epoch))


@dataclass(frozen=True, slots=True)
class Pins:
    """Where a session's versions differ from stable, and which experts it lost its version of.

    `lost` are (expert id, revision of the rollout that took the version away).
    """

    moved: Mapping[str, Version]
    lost: tuple[tuple[str, int], ...] = ()

    def of(self, row: ExpertRow) -> Version | None:
        return self.moved.get(row.expert_id, row.stable)


def pin(view: View, session: str, began: int) -> Pins:
    """Derive the versions of one session; `began` is an epoch of this view's uid."""
    moved: dict[str, Version] = {}
    lost = []
    for row in view.rolling:
        version = pinned(row, session, began)
        if version is not None and version != row.stable:
            moved[row.expert_id] = version
        if row.rollout is not None and _took_its_version(row, row.rollout, session, began):
            lost.append((row.expert_id, row.rollout.revision))
    return Pins(moved, tuple(lost))


def _took_its_version(row: ExpertRow, rollout: Rollout, session: str, began: int) -> bool:
    """Whether the last rollout took from this session the version that it used.

    A rollout that was taken back took its target; one that was promoted took the old version once
    its pods are gone. Sessions that began on the other side, or afterwards, lost nothing; nor did
    those that began before an expert's very first version, which has no trial.
    """
    if not rollout.outcome.ended or row.stable is None:
        return False
    on_target = bucket(rollout.salt, session) < weight_at(rollout.weights, began) * 100
    if rollout.outcome is Outcome.PROMOTED:
        tried = len(rollout.weights) > 1 and row.stable == rollout.target
        return tried and not on_target and row.previous is None
    return on_target and rollout.target.sha256 in row.revoked
