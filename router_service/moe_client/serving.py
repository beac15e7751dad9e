"""Knows what the routers serve now, and has each session begin with its version of each gate.

While the mixture has one version of each gate, nobody is asked: sessions use what was described
last. A router that refuses that version (a rollout has begun, or ended) makes the attachment ask
anew; from then on, for as long as versions are tried out, each new session is begun by a router
before its first rows. What is refused, and what that ends, is decided elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from moe_client.begun import MAX_SESSIONS, Start
from moe_client.client import RouterClient
from moe_client.errors import NotFound
from moe_client.gates import Gates, Routers
from moe_client.mixture import Mixture
from moe_client.plan import Pins, Plan
from moe_client.sessions import SessionBook

TRIES = 5
FIRST_PAUSE_S = 0.05
"""Routers take a new table one after another."""


class Serving:
    """Safe from any thread. `mixture` is the description got last."""

    def __init__(
        self,
        client: RouterClient,
        book: SessionBook,
        gates: Gates,
        mixture: Mixture,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.mixture = mixture
        self._client, self._book, self._gates, self._pause = client, book, gates, pause

    def plan(
        self, sessions: Sequence[str], forced: Mapping[str, str], contexts: Sequence[str] = ()
    ) -> Plan:
        """Return which gates apply to a call of these sessions; new ones begin. Raises MoeError.

        `forced` are versions by gate that are wished for, whatever the pins say; `contexts` are
        those of the sessions, none where it is empty.
        """
        new = [session for session in sessions if not self._book.state(session).gates]
        if new and not self.mixture.tries_gates:
            stable = {gate.name: gate.sha256 for gate in self.mixture.gates}
            self._book.begin(Start(session, b"", stable) for session in new)
            new = []
        return self._ready(sessions, forced, contexts, new)

    def renew(
        self, sessions: Sequence[str], forced: Mapping[str, str], contexts: Sequence[str] = ()
    ) -> Plan:
        """Return the same as the routers say now, of sessions that have begun too."""
        return self._ready(sessions, forced, contexts, sessions)

    def _ready(
        self,
        sessions: Sequence[str],
        forced: Mapping[str, str],
        contexts: Sequence[str],
        asking: Sequence[str],
    ) -> Plan:
        for attempt in range(TRIES):
            if attempt:
                self._pause(FIRST_PAUSE_S * 2 ** (attempt - 1))
            if asking:
                self._begin(asking)
            try:
                return self._plan(sessions, forced, contexts)
            except NotFound as error:
                last, asking = error, sessions
        raise last

    def _begin(self, sessions: Sequence[str]) -> None:
        for at in range(0, len(sessions), MAX_SESSIONS):
            part = sessions[at : at + MAX_SESSIONS]
            tokens = {session: self._book.state(session).start_token for session in part}
            begun = self._client.begin(tokens)
            if (begun.table_uid, begun.epoch) != (self.mixture.table_uid, self.mixture.epoch):
                self.mixture = self._client.describe(session=part[0])
                self._gates.keep(self.mixture)
            self._book.begin(begun.starts)

    def _plan(
        self, sessions: Sequence[str], forced: Mapping[str, str], contexts: Sequence[str]
    ) -> Plan:
        """Raises NotFound where the mixture does not name a version, or no router has it."""
        mixture = self.mixture
        pins = tuple(self._pins(mixture, session, forced) for session in sessions)
        said = tuple(contexts) or ("",) * len(pins)
        pairs = zip(pins, said, strict=True)
        wanted = {(name, sha256, about) for own, about in pairs for name, sha256 in own.items()}
        routers = {
            (sha256, about): self._routers(mixture, name, sha256, about)
            for name, sha256, about in wanted
        }
        plain = all(
            self._gates.own.get(name) == sha256 and not about for name, sha256, about in wanted
        )
        return Plan(pins, said, routers, frozenset(forced), plain)

    def _pins(self, mixture: Mixture, session: str, forced: Mapping[str, str]) -> Pins:
        own = {**self._book.state(session).gates, **forced}
        return {gate.name: own.get(gate.name, gate.sha256) for gate in mixture.gates}

    def _routers(self, mixture: Mixture, name: str, sha256: str, context: str) -> Routers:
        gate = mixture.gate(name)
        version = gate.find(sha256) if gate is not None else None
        if gate is None or version is None:
            named = ", ".join(v.sha256 for v in gate.versions) if gate is not None else "none"
            raise NotFound(
                f"gate {name} has no version {sha256}; mixture {mixture.name} names {named}",
                epoch=mixture.epoch,
            )
        return self._gates.routers(mixture, gate, version, context)
