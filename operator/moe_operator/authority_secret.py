"""Reads and writes the Secrets of authorities: the operator's own, and one that people give.

What a Secret of type kubernetes.io/tls has is `tls.crt` and `tls.key`; the operator's own has the
authorities that follow and went before beside them. What is done with them is decided in
`authority`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from moe_operator import labels
from moe_operator.authority import Trust
from moe_operator.certificates import BadCertificate, Pair, authorizes, facts, first, fits
from moe_operator.kinds import SECRET, Body, annotations_of, metadata

SINCE: Final = "moeops.dev/since"
ROTATE: Final = "moeops.dev/rotate"
_CURRENT: Final = ("tls.crt", "tls.key")
_FOLLOWING: Final = ("next.crt", "next.key")
_PREVIOUS: Final = "previous.crt"


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


def read_given(body: Body) -> Pair:
    """Read an authority that people give. Raises BadCertificate, naming what is wrong.

    Of a chain the first one counts: who vouches is to be believed, not all whom others vouch for.
    """
    name = metadata(body).get("name")
    data = body.get("data") or {}
    missing = [file for file in _CURRENT if not data.get(file)]
    if missing:
        raise BadCertificate(f"Secret {name} is no authority: it has no {' and no '.join(missing)}")
    chain, key = (base64.b64decode(data[file]) for file in _CURRENT)
    try:
        pair = Pair(first(chain), key)
        vouches = authorizes(pair.certificate)
    except ValueError as error:
        raise BadCertificate(f"Secret {name} is no authority: {error}") from None
    if not vouches:
        raise BadCertificate(f"Secret {name} is no authority: its certificate is not of a CA")
    if not fits(pair):
        raise BadCertificate(f"Secret {name} is no authority: tls.key is not of its certificate")
    return pair


def authority_secret(namespace: str, name: str, trust: Trust) -> dict[str, Any]:
    """Return the operator's own, as it is created."""
    meta = {"name": name, "namespace": namespace, "labels": labels.common()}
    return {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.name,
        "type": "kubernetes.io/tls",
        "metadata": {**meta, "annotations": _annotations({}, trust)},
        "data": _data(trust),
    }


def replaced(body: Body, trust: Trust) -> dict[str, Any]:
    """Return the operator's own after a step."""
    noted = {**metadata(body), "annotations": _annotations(body, trust)}
    return {**body, "metadata": noted, "data": _data(trust)}


def _data(trust: Trust) -> dict[str, str]:
    found = dict(zip(_CURRENT, (trust.current.certificate, trust.current.key), strict=True))
    if trust.following is not None:
        both = (trust.following.certificate, trust.following.key)
        found |= dict(zip(_FOLLOWING, both, strict=True))
    if trust.previous:
        found[_PREVIOUS] = trust.previous
    return encoded(found)


def _annotations(body: Body, trust: Trust) -> dict[str, str]:
    """Return those there are, with the time of the step; a person's wish is fulfilled by it."""
    kept = {name: text for name, text in annotations_of(body).items() if name != ROTATE}
    return {**kept, SINCE: trust.since.astimezone(UTC).isoformat()}


def encoded(data: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(content).decode() for name, content in data.items()}
