"""The verbs that look back: `history` and `diff`, of an expert or of a mixture."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import yaml

from kubectl_moe import draw, listing
from kubectl_moe.advice import after_history, moe
from kubectl_moe.cluster import Body, Cluster
from kubectl_moe.decide import Refused
from kubectl_moe.health import Exit
from kubectl_moe.names import described, told
from kubectl_moe.past import (
    Epoch,
    Past,
    difference,
    epochs,
    find_epoch,
    readable,
)
from kubectl_moe.past import find as find_past
from kubectl_moe.past import history as read_history
from kubectl_moe.session import Session, find
from kubectl_moe.tree import EXPERT_LABEL, GATE_LABEL, MIXTURE_LABEL, PART_LABEL

_DATA: Final = ("json", "yaml")


def history(args: Namespace, session: Session) -> Exit:
    """List the revisions of an expert or the epochs of a mixture, or show one of them whole."""
    target = find(args.target, session.cluster, "Expert", "Mixture", "Gate")
    if target["kind"] == "Mixture":
        _history_of_mixture(target, args, session)
    else:
        _history_of_expert(target, args, session)
    return Exit.HEALTHY


def diff(args: Namespace, session: Session) -> Exit:
    """Show what differs between two revisions or epochs, as a unified diff."""
    target = find(args.target, session.cluster, "Expert", "Mixture", "Gate")
    name, word = target["metadata"]["name"], "revision"
    if target["kind"] == "Mixture":
        word, kept = "epoch", epochs_of(target, session.cluster)
        known = {epoch.epoch: epoch.text for epoch in readable(kept)}
        chosen = [
            None if text is None else find_epoch(kept, text, name).epoch
            for text in (args.a, args.b)
        ]
    else:
        past = past_of(target, session.cluster)
        known = {each.revision: each.text for each in readable(past)}
        chosen = [
            None if text is None else find_past(past, text, name).revision
            for text in (args.a, args.b)
        ]
    one, other = _two(described(target), list(known), chosen)
    titles = f"{name} {word} {one}", f"{name} {word} {other}"
    said = difference((titles[0], known[one]), (titles[1], known[other]))
    if args.output != "text":
        session.show({"a": titles[0], "b": titles[1], "diff": said}, args.output)
    elif said:
        session.print(said)
        session.advise([moe(f"rollback {told(target)} --to {one}", "serve the first again")])
    else:
        session.say(f"{titles[0]} and {titles[1]} are the same")
    return Exit.DIFFERENT if said else Exit.HEALTHY


def _two(what: str, known: Sequence[int], chosen: Sequence[int | None]) -> tuple[int, int]:
    """Return which two to compare, of numbers in rising order. Raises Refused where there is one.

    Where the second is not chosen it is the newest; where the first is not, the one before it.
    """
    a, b = chosen
    other = known[-1] if b is None and known else b
    one = a if a is not None else next((n for n in reversed(known) if n < (other or 0)), None)
    if one is None or other is None:
        raise Refused(f"{what} has nothing to compare: there is no earlier one")
    return one, other


def past_of(expert: Body, cluster: Cluster) -> tuple[Past, ...]:
    """Return the revisions of an Expert or a Gate."""
    label = GATE_LABEL if expert["kind"] == "Gate" else EXPERT_LABEL
    selector = f"{label}={expert['metadata']['name']}"
    revisions = cluster.list("ControllerRevision", selector)
    return read_history(revisions, expert.get("status", {}).get("history", ()))


def epochs_of(mixture: Body, cluster: Cluster) -> tuple[Epoch, ...]:
    """Return the epochs of a Mixture that are kept."""
    others = ",".join(f"!{label}" for label in (EXPERT_LABEL, GATE_LABEL, PART_LABEL))
    selector = f"{MIXTURE_LABEL}={mixture['metadata']['name']},{others}"
    return epochs(cluster.list("ControllerRevision", selector))


def _history_of_expert(expert: Body, args: Namespace, session: Session) -> None:
    name, past = expert["metadata"]["name"], past_of(expert, session.cluster)
    if args.revision:
        _show_revision(find_past(past, args.revision, name), expert, args, session)
    elif args.output in _DATA:
        items = [listing.past_entry(each, expert) for each in past]
        session.show({expert["kind"].lower(): name, "revisions": items}, args.output)
    else:
        wide = args.output == "wide"
        rows = listing.history_rows(past, expert, datetime.now(UTC), wide=wide)
        session.print(draw.table(*rows))
        session.advise(after_history(expert, len(past)))


def _show_revision(past: Past, expert: Body, args: Namespace, session: Session) -> None:
    entry = listing.past_entry(past, expert)
    if args.output in _DATA:
        session.show({**entry, "template": past.template}, args.output)
        return
    for title, value in entry.items():
        if value:
            session.print(f"{title + ':':<10}{value}")
    session.print(f"template:\n{yaml.safe_dump(dict(past.template), sort_keys=True).rstrip()}")


def _history_of_mixture(mixture: Body, args: Namespace, session: Session) -> None:
    name, kept = mixture["metadata"]["name"], epochs_of(mixture, session.cluster)
    if args.revision:
        epoch = find_epoch(kept, args.revision, name)
        if args.output in _DATA:
            session.show(_epoch_entry(epoch), args.output)
        else:
            session.print(draw.table(*listing.epoch_objects(epoch)))
    elif args.output in _DATA:
        entries = [_epoch_entry(each) for each in kept]
        session.show({"mixture": name, "epochs": entries}, args.output)
    else:
        session.print(draw.table(*listing.epoch_rows(kept, datetime.now(UTC))))
        session.advise(after_history(mixture, len(kept)))


def _epoch_entry(epoch: Epoch) -> dict[str, object]:
    return {
        "epoch": epoch.epoch,
        "created": epoch.created,
        "experts": {name: version.to_dict() for name, version in epoch.experts.items()},
        "gates": {name: row.to_dict() for name, row in epoch.gates.items()},
        "unreadable": epoch.unreadable,
    }
