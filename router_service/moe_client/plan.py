"""Which version of each gate applies to each session of one call. Pure; fetches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moe_client.gates import Routers

Pins = Mapping[str, str]
"""sha256 of a session's version, by the gate's name."""
Variant = tuple[str, str]
"""sha256 of a version, and a context; empty for none."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The pins of a call's sessions, in the order of the batch, and what applies each version.

    `forced` are gates whose version is wished for, whatever the router's pins say. `plain` says
    that every session is on the model's own gates, and of no context: then nothing but the model
    itself is asked. `contexts` are those of the sessions, empty where none is named.
    """

    pins: tuple[Pins, ...]
    contexts: tuple[str, ...]
    routers: Mapping[Variant, Routers]
    forced: frozenset[str] = frozenset()
    plain: bool = True

    def versions(self, gate: str) -> list[str]:
        """Return the digest of each session's version of a gate."""
        return [pins[gate] for pins in self.pins]

    def variants(self, gate: str) -> list[Variant]:
        """Return which version of a gate applies to each session, and for which context."""
        return list(zip(self.versions(gate), self.contexts, strict=True))


def moved(sessions: Sequence[str], before: Plan, after: Plan) -> dict[str, tuple[str, ...]]:
    """Return, by session, the gates whose version is another than before."""
    pairs = zip(sessions, before.pins, after.pins, strict=True)
    changed = {
        session: tuple(sorted(n for n in old.keys() | new.keys() if old.get(n) != new.get(n)))
        for session, old, new in pairs
    }
    return {session: names for session, names in changed.items() if names}
