"""What the objects of moeops are called, in the API server and on a command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GROUP = "moeops.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

PLURALS = {
    "Mixture": "mixtures",
    "Expert": "experts",
    "Gate": "gates",
    "Override": "overrides",
    "RoutingTable": "routingtables",
}

_ALIASES = {
    alias: kind
    for kind, aliases in {
        "Mixture": ("mixture", "mixtures", "mx"),
        "Expert": ("expert", "experts", "ex"),
        "Gate": ("gate", "gates", "gt"),
        "Override": ("override", "overrides", "ov"),
    }.items()
    for alias in aliases
}


class UsageError(ValueError):
    """The command line asks for something that does not exist; the message says what does."""


@dataclass(frozen=True, slots=True)
class Target:
    """An object as a person names it: `expert/e3`, `mx/tiny`, or a bare name of unknown kind."""

    kind: str | None
    name: str

    @classmethod
    def parse(cls, text: str) -> Target:
        """Raises UsageError where the part before the slash is no kind, or there is no name."""
        prefix, slash, name = text.rpartition("/")
        kind = parse_kind(prefix) if slash else None
        if not name:
            raise UsageError(f"{text!r} names no object; write KIND/NAME or NAME")
        return cls(kind, name)


def parse_kind(text: str) -> str:
    """Return the kind for a name, plural or short name. Raises UsageError."""
    try:
        return _ALIASES[text.lower()]
    except KeyError:
        known = ", ".join(sorted(_ALIASES))
        raise UsageError(f"{text!r} is no kind of moeops; kinds are {known}") from None


def resource(body: Mapping[str, Any]) -> str:
    """Return how kubectl names an object: `expert.moeops.dev/tiny-e3`."""
    return f"{body['kind'].lower()}.{GROUP}/{body['metadata']['name']}"


def told(body: Mapping[str, Any]) -> str:
    """Return how an object is named on a command line of this plugin."""
    name: str = body["metadata"]["name"]
    return name if body["kind"] == "Expert" else f"{body['kind'].lower()}/{name}"


def described(body: Mapping[str, Any]) -> str:
    """Return how an object is named in a sentence."""
    return f"{body['kind'].lower()} {body['metadata']['name']!r}"
