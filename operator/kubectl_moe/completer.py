"""Tells a shell what may stand at its cursor: `kubectl_complete-moe` and `kubectl-moe __complete`.

Names come from the cluster, within a time that one waits for at a cursor. Whatever goes wrong, it
offers less and says nothing: words for a person would end up in the command line.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from threading import Thread
from typing import Final

from kubectl_moe import kubeconfig
from kubectl_moe.cluster import Body, Cluster, ClusterError
from kubectl_moe.completing import Choice, Wanted, wanted
from kubectl_moe.grammar import Words, duration
from kubectl_moe.names import PLURALS, Target, UsageError, parse_kind

# How long one waits for a cluster, at most; a duration such as 5s in that variable says otherwise.
LIMIT_S: Final = 2.0
LIMIT_NAME: Final = "KUBECTL_MOE_COMPLETION_TIMEOUT"
# What a shell does beside: cobra's directives, which kubectl hands on.
_FILES, _NO_FILES, _FOLDERS = 0, 4, 16
_DIRECTIVES: Final = {Words.FILE: _FILES, Words.FOLDER: _FOLDERS}
_PREFIXES: Final = {"Gate": "gate/", "Mixture": "mixture/", "Expert": ""}


def main() -> int:
    return complete(sys.argv[1:])


def complete(words: Sequence[str]) -> int:
    """Print choices for the last of these words and a directive; return the exit code, 0."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    asked, found = wanted(words), list[Choice]()
    if asked.words in (Words.NOTHING, Words.FILE, Words.FOLDER):
        found = list(asked.fixed)
    else:
        limit_s = _limit_s()
        thread = Thread(target=lambda: found.extend(_live(asked, limit_s)), daemon=True)
        thread.start()
        thread.join(limit_s)
    lines = [f"{word}\t{why}" if why else word for word, why in found]
    fitting = [line for line in lines if line.startswith(asked.current)]
    print("\n".join([*fitting, f":{_DIRECTIVES.get(asked.words, _NO_FILES)}"]))
    return 0


def _limit_s() -> float:
    with suppress(ArgumentTypeError):
        return duration(os.environ.get(LIMIT_NAME, ""))
    return LIMIT_S


def _live(asked: Wanted, limit_s: float) -> list[Choice]:
    """Return what kubeconfig and cluster know; nothing where they cannot be asked."""
    try:
        said = asked.said
        if asked.words is Words.CONTEXT:
            return [(name, "") for name in kubeconfig.contexts(said.get("kubeconfig"), os.environ)]
        if asked.words is Words.KIND:
            return [(plural, "") for kind, plural in PLURALS.items() if kind != "RoutingTable"]
        from kubectl_moe.connection import connect  # what is fixed needs no cluster

        cluster = connect(
            said.get("kubeconfig"), said.get("context"), said.get("namespace") or None, limit_s
        )
        return list(choices(asked, cluster))
    except Exception:  # a cursor is no place to say it
        return []


def choices(asked: Wanted, cluster: Cluster) -> Iterator[Choice]:
    """Give the names that the cluster knows. Raises ClusterError and UsageError."""
    match asked.words:
        case Words.NAMESPACE:
            yield from _names(cluster.list("Namespace"))
        case Words.NAME:
            yield from _names(cluster.list(parse_kind(asked.said["kind"])))
        case Words.MIXTURE:
            yield from _names(cluster.list("Mixture"))
        case Words.GATE:
            gates, mixture = cluster.list("Gate"), asked.said["mixture"]
            yield from _names(g for g in gates if g["spec"]["mixtureRef"]["name"] == mixture)
        case Words.TRIED:
            yield from _targets(asked.current, ("Expert", "Gate"), _PREFIXES, cluster)
        case Words.SHOWN:
            bare = asked.verb is not None and asked.verb.name == "status"
            prefixes = {**_PREFIXES, "Mixture": ""} if bare else _PREFIXES
            kinds = ("Mixture", "Expert", "Gate")
            yield from _targets(asked.current, kinds, prefixes, cluster)
        case Words.PAST:
            yield from _past(asked, cluster)


def _targets(
    current: str, kinds: Iterable[str], prefixes: Mapping[str, str], cluster: Cluster
) -> Iterator[Choice]:
    """Give objects as they are named on a command line; behind `ex/` experts alone."""
    prefix, slash, _ = current.rpartition("/")
    if slash:
        kind = parse_kind(prefix)
        kinds = [kind] if kind in kinds else []
        prefixes = {kind: f"{prefix}/"}
    for kind in kinds:
        with suppress(ClusterError):  # who may not see gates still sees experts
            for name, why in _names(cluster.list(kind)):
                yield f"{prefixes[kind]}{name}", why


def _names(bodies: Iterable[Body]) -> Iterator[Choice]:
    """Give names, with what is served where that is said."""
    for body in bodies:
        status = body.get("status", {})
        told = (status.get("version"), status.get("phase"))
        yield body["metadata"]["name"], " ".join(part for part in told if isinstance(part, str))


def _past(asked: Wanted, cluster: Cluster) -> Iterator[Choice]:
    """Give versions and revisions of an expert or a gate, epochs of a mixture; the newest first."""
    from kubectl_moe.chronicle import epochs_of, past_of

    target = Target.parse(asked.said["target"])
    body = {**cluster.get(target.kind or "Expert", target.name), "kind": target.kind or "Expert"}
    if body["kind"] == "Mixture":
        for epoch in reversed(epochs_of(body, cluster)):
            yield str(epoch.epoch), epoch.created
        return
    if body["kind"] not in ("Expert", "Gate"):
        raise UsageError(f"{body['kind']} has no revisions")
    past = past_of(body, cluster)[::-1]
    told: set[str] = set()
    for each in past:
        if each.version and each.version not in told:
            told.add(each.version)
            yield each.version, f"revision {each.revision} {each.outcome}".rstrip()
    if asked.verb is None or asked.verb.name != "set":
        for each in past:
            yield str(each.revision), f"{each.version} {each.outcome}".strip()
