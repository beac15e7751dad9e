"""Keeps the certificates of every mixture in Secrets beside it, and the authority in its own.

A look at a mixture first lets its Secrets be there, so that its pods find them. What is written is
remembered, and none but the authority's Secret is ever read: so an operator that begins to lead
writes each anew, once. What is due is decided in `authority`.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
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
from moe_operator.cache import Cache, Key, uid
from moe_operator.certificates import (
    BadCertificate,
    Pair,
    facts,
    fits,
    make_authority,
    make_leaf,
)
from moe_operator.cluster import ApiError, Exists, Lister, NotFound, Writer
from moe_operator.kinds import MIXTURE, SECRET, Body, annotations_of, metadata
from moe_operator.tls import Part

SINCE: Final = "moeops.dev/since"
ROTATE: Final = "moeops.dev/rotate"
_CURRENT: Final = ("tls.crt", "tls.key")
_FOLLOWING: Final = ("next.crt", "next.key")
_PREVIOUS: Final = "previous.crt"
_EVERY_S: Final = 60.0
_AGAIN_S: Final = 5.0


@dataclass(slots=True)
class Certify:
    """The certificates of the mixtures in `cache`, and the operator's own of the name `operator`.

    The authority is in the Secret `namespace`/`secret`.
    """

    writer: Writer
    lister: Lister
    cache: Cache
    namespace: str
    secret: str
    operator: str
    now: Callable[[], datetime]
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
            body = await self._begin()
        trust = read_trust(body)
        step = authority_step(trust, self.now())
        if step is not Step.KEEP:
            trust = self._after(trust, step)
            fenced = {**metadata(body), "annotations": _annotations(body, trust)}
            stored = {**body, "metadata": fenced, "data": _data(trust)}
            await self.writer.replace(SECRET, stored)
            tell("authority_exchanged", step=str(step))
        self._trust = trust
        self._prove(trust)
        return trust

    async def _begin(self) -> Body:
        """Create the authority; where another operator just did, that one counts."""
        now = self.now()
        pair = make_authority("moeops", now, AUTHORITY_LIFETIME)
        trust = Trust(pair, facts(pair.certificate), now)
        meta = {"name": self.secret, "namespace": self.namespace, "labels": labels.common()}
        body = {
            "apiVersion": SECRET.api_version,
            "kind": SECRET.name,
            "type": "kubernetes.io/tls",
            "metadata": {**meta, "annotations": _annotations({}, trust)},
            "data": _data(trust),
        }
        try:
            return await self.writer.create(SECRET, body)
        except Exists:
            return await self.lister.get(SECRET, self.namespace, self.secret)

    def _after(self, trust: Trust, step: Step) -> Trust:
        now = self.now()
        made = trust.following or make_authority("moeops", now, AUTHORITY_LIFETIME)
        return taken(trust, step, now, made, facts(made.certificate))

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


def read_trust(body: Body) -> Trust:
    """Read the authority's Secret. Raises BadCertificate, naming what is wrong."""
    name = metadata(body).get("name")
    try:
        data = {k: base64.b64decode(v) for k, v in (body.get("data") or {}).items()}
        current = Pair(data["tls.crt"], data["tls.key"])
        following = Pair(data["next.crt"], data["next.key"]) if "next.crt" in data else None
        seen = facts(current.certificate)
        since = annotations_of(body).get(SINCE, "")
        at = datetime.fromisoformat(since) if since else seen.begins
    except (KeyError, ValueError) as error:
        raise BadCertificate(f"Secret {name} is no authority: {error}") from None
    if not all(fits(pair) for pair in (current, following) if pair is not None):
        raise BadCertificate(f"Secret {name} is no authority: a key is not of its certificate")
    asked = ROTATE in annotations_of(body)
    return Trust(current, seen, at, following, data.get(_PREVIOUS, b""), asked)


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
        "data": _encoded(
            {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": believed},
        ),
    }


def _data(trust: Trust) -> dict[str, str]:
    found = dict(zip(_CURRENT, (trust.current.certificate, trust.current.key), strict=True))
    if trust.following is not None:
        both = (trust.following.certificate, trust.following.key)
        found |= dict(zip(_FOLLOWING, both, strict=True))
    if trust.previous:
        found[_PREVIOUS] = trust.previous
    return _encoded(found)


def _annotations(body: Body, trust: Trust) -> dict[str, str]:
    """Return those there are, with the time of the step; a person's wish is fulfilled by it."""
    kept = {name: text for name, text in annotations_of(body).items() if name != ROTATE}
    return {**kept, SINCE: trust.since.astimezone(UTC).isoformat()}


def _encoded(data: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(content).decode() for name, content in data.items()}
