"""Pairs that two workers are asked for at once: who is the second, and whose answer counts.

When a second one is asked, and how often, `hedge` decides. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from moe_core.table import Rung
from moe_router.ladder import Lost
from moe_router.message import Message, Outlook, Part


def twin(part: Part, message: Message, outlook: Outlook) -> Part | None:
    """Return the pairs of a part of a message to be asked of others with the version, if any are.

    None, too, where the version is revoked.
    """
    ask, history = part.ask, part.lost.history
    if outlook.newest.revokes(ask.expert_id, ask.sha256):
        return None
    failed = history.failed | {(message.worker, ask.sha256)}
    held = outlook.routable.live.get((ask.sha256, message.layer), ())
    others = tuple(worker for worker in held if (worker, ask.sha256) not in failed)
    if not others:
        return None
    longer = replace(history, failed=failed, attempts=history.attempts + 1)
    rung = Rung.REPLICA if ask.rung is None else ask.rung
    lost = replace(part.lost, history=longer)
    return Part(lost, replace(ask, rung=rung, workers=others), part.pairs)


@dataclass(slots=True)
class _Race:
    """Two attempts at the same pairs; `parts` are kept so that their ids stay theirs."""

    parts: tuple[Part, Part]
    decided: bool = False
    lost: Lost | None = None


class Races:
    """The parts of one request that two workers were asked for; the first usable answer counts."""

    def __init__(self) -> None:
        self._races: dict[int, _Race] = {}

    def begin(self, part: Part, twin: Part) -> None:
        self._races[id(part)] = self._races[id(twin)] = _Race((part, twin))

    def hedged(self, part: Part) -> bool:
        return id(part) in self._races

    def decided(self, part: Part) -> bool:
        """Whether these pairs have been answered, so that what comes now is to be dropped."""
        race = self._races.get(id(part))
        return race is not None and race.decided

    def win(self, part: Part) -> None:
        race = self._races.get(id(part))
        if race is not None:
            race.decided = True

    def lose(self, part: Part, lost: Lost) -> Lost | None:
        """Take it that an attempt failed; return what to place, None while the other one runs."""
        race = self._races.get(id(part))
        if race is None:
            return lost
        if race.lost is None:
            race.lost = lost
            return None
        one, two = race.lost.history, lost.history
        both = replace(
            two,
            failed=one.failed | two.failed,
            barred=one.barred | two.barred,
            attempts=max(one.attempts, two.attempts),
        )
        return replace(lost, history=both)
