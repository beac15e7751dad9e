"""Keeps the certificates of every mixture in Secrets beside it, and the authority in its own.

A look at a mixture first lets its Secrets be there, so that its pods find them. What is written is
remembered, and only Secrets of authorities are ever read: so an operator that begins to lead writes
each anew, once. What is due is decided in `authority`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from logging import WARNING
from typing import Any, Final

from moe_core.log import tell
from moe_core.metrics import Labels
from moe_core.tls import Material
from moe_operator import labels, tls
from moe_operator.authority import (
    AUTHORITY_LIFETIME,
    LEAF_LIFETIME,
    Leaf,
    Step,
    Trust,
    authority_step,
    stale,
    taken,
)
from moe_operator.authority_secret import (
    authority_secret,
    encoded,
    read_given,
    read_trust,
    replaced,
)
from moe_operator.cache import Cache, Key, uid
from moe_operator.certificates import (
    BadCertificate,
    Pair,
    facts,
    make_authority,
    make_leaf,
)
from moe_operator.cluster import ApiError, Exists, Lister, NotFound, Writer
from moe_operator.kinds import MIXTURE, SECRET, Body, metadata
from moe_operator.tls import Part

_EVERY_S: Final = 60.0
_AGAIN_S: Final = 5.0


@dataclass(slots=True)
class Certify:
    """The certificates of the mixtures in `cache`, and the operator's own of the name `operator`.

    The authority is in the Secret `namespace`/`secret`; where it comes from `source` there, it is
    that of people.
    """

    writer: Writer
    lister: Lister
    cache: Cache
    namespace: str
    secret: str
    operator: str
    now: Callable[[], datetime]
    source: str = ""
    _trust: Trust | None = None
    _own: tuple[Leaf, Material] | None = None
    _leaves: dict[tuple[Key, Part], Leaf] = field(default_factory=dict)

    def own(self) -> Material | None:
        """Return what the operator proves to programs; None before it led."""
        return None if self._own is None else self._own[1]

    async def __call__(self, key: Key) -> None:
        """Let the Secrets of a mixture be as they must. Raises ApiError."""
        body = self.cache.get(MIXTURE, key.namespace, key.mixture)
        if body is None or "deletionTimestamp" in metadata(body):
            self._leaves = {place: leaf for place, leaf in self._leaves.items() if place[0] != key}
            return
        trust = self._trust or await self._authority()
        for part in Part:
            names = tls.names(key.mixture, key.namespace, part)
            reason = stale(self._leaves.get((key, part)), names, trust, self.now())
            if reason:
                await self._write(key, body, part, trust)
                tell("certificate_made", mixture=str(key), part=str(part), reason=reason)

    async def keep(self) -> None:
        """Look after all of them, for ever."""
        while True:
            done = await self.once()
            await asyncio.sleep(_EVERY_S if done else _AGAIN_S)

    async def once(self) -> bool:
        """Take the authority a step further where it is due, then all certificates."""
        try:
            await self._authority()
            for key in self.cache.keys():  # noqa: SIM118  # not a dict
                await self(key)
        except (ApiError, BadCertificate) as error:
            tell("certificates_not_swept", level=WARNING, reason=error)
            return False
        return True

    def ends(self) -> Iterator[tuple[Labels, float]]:
        """Yield when each certificate is over, as unix time, by mixture and part."""
        if self._trust is not None:
            yield ("", "", "authority"), self._trust.facts.ends.timestamp()
        if self._own is not None:
            yield ("", "", "operator"), self._own[0].facts.ends.timestamp()
        for (key, part), leaf in self._leaves.items():
            yield (key.namespace, key.mixture, part.value), leaf.facts.ends.timestamp()

    async def _authority(self) -> Trust:
        """Read the authority, made where there is none, and take the step that is due."""
        try:
            body = await self.lister.get(SECRET, self.namespace, self.secret)
        except NotFound:
            body = await self._begin(await self._given() or self._made())
        trust = read_trust(body)
        try:
            given = await self._given()
        except BadCertificate as error:  # what vouches goes on, and nothing follows it
            tell("authority_not_taken", level=WARNING, reason=error)
            given = trust.current
        step = authority_step(trust, self.now(), given)
        if step is not Step.KEEP:
            made = trust.following or given or self._made()
            trust = taken(trust, step, self.now(), made, facts(made.certificate))
            await self.writer.replace(SECRET, replaced(body, trust))
            tell("authority_exchanged", step=str(step))
        self._trust = trust
        self._prove(trust)
        return trust

    async def _given(self) -> Pair | None:
        """Return the authority that people give; None where they name none."""
        if not self.source:
            return None
        try:
            return read_given(await self.lister.get(SECRET, self.namespace, self.source))
        except NotFound:
            where = f"Secret {self.source} in namespace {self.namespace}"
            raise BadCertificate(
                f"{where} is not there: the authority is to come from it"
            ) from None

    def _made(self) -> Pair:
        return make_authority("moeops", self.now(), AUTHORITY_LIFETIME)

    async def _begin(self, pair: Pair) -> Body:
        """Create the authority; where another operator just did, that one counts."""
        trust = Trust(pair, facts(pair.certificate), self.now())
        try:
            return await self.writer.create(
                SECRET, authority_secret(self.namespace, self.secret, trust)
            )
        except Exists:
            return await self.lister.get(SECRET, self.namespace, self.secret)

    def _prove(self, trust: Trust) -> None:
        names = (self.operator,)
        leaf = None if self._own is None else self._own[0]
        if stale(leaf, names, trust, self.now()):
            pair = make_leaf(trust.current, names, self.now(), LEAF_LIFETIME)
            material = Material(pair.certificate, pair.key, trust.believed)
            self._own = Leaf(facts(pair.certificate), trust.believed), material

    async def _write(self, key: Key, mixture: Body, part: Part, trust: Trust) -> None:
        names = tls.names(key.mixture, key.namespace, part)
        pair = make_leaf(trust.current, names, self.now(), LEAF_LIFETIME)
        body = leaf_secret(key, mixture, part, pair, trust.believed)
        try:
            await self.writer.replace(SECRET, body)
        except NotFound:
            await self.writer.create(SECRET, body)
        self._leaves[key, part] = Leaf(facts(pair.certificate), trust.believed)


def leaf_secret(
    key: Key, mixture: Body, part: Part, pair: Pair, believed: bytes
) -> Mapping[str, Any]:
    """Return the Secret of one part of a mixture, which goes with it."""
    owner = {
        "apiVersion": labels.API_VERSION,
        "kind": MIXTURE.name,
        "name": key.mixture,
        "uid": uid(mixture),
    }
    return {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.name,
        "type": "kubernetes.io/tls",
        "metadata": {
            "name": tls.secret_name(key.mixture, part),
            "namespace": key.namespace,
            "labels": {**labels.common(), labels.MIXTURE: key.mixture},
            "ownerReferences": [owner],
        },
        "data": encoded(
            {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": believed},
        ),
    }
