"""Turns `rollback mixture/NAME` into one Override that brings an epoch back, or says why not.

Pure: the epochs that are kept and the objects there are go in, a body or a sentence comes out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kubectl_moe.decide import Body, Refused, Skip, override_of
from kubectl_moe.past import Epoch, find_epoch, readable


def restore(
    mixture: Body,
    epochs: Sequence[Epoch],
    objects: Sequence[Body],
    overrides: Sequence[Body],
    to: str | None,
    reason: str,
) -> dict[str, Any] | Skip:
    """Serve what an epoch served: without `to` the one kept before the newest.

    `objects` are the Experts and Gates of the mixture. Only those are listed in the Override that
    serve or ask for something else; the others follow their spec. Raises Refused and Unknown.
    """
    name, kept = mixture["metadata"]["name"], readable(epochs)
    if to is None and len(kept) < 2:
        raise Refused(f"mixture {name!r} has no earlier epoch to go back to")
    target = kept[-2] if to is None else find_epoch(epochs, to, name)
    replaces = [entry for body in objects for entry in _replaced(body, kept[-1], target)]
    if not replaces:
        return Skip(f"mixture {name!r} serves what epoch {target.epoch} served")
    decision = {"action": "Serve", "epoch": target.epoch, "replaces": replaces}
    return override_of(mixture, decision, overrides, reason)


def _replaced(body: Body, now: Epoch, target: Epoch) -> Iterator[dict[str, str]]:
    kind, name = body["kind"], body["metadata"]["name"]
    then, served = target.version(kind, name), now.row(kind, name) == target.row(kind, name)
    wanted = body["spec"]["version"]
    if then is not None and not (served and wanted == then.version):
        yield {"kind": kind, "name": name, "insteadOf": wanted}


def gone(target: Epoch, objects: Sequence[Body]) -> tuple[str, ...]:
    """Return the objects of an epoch that are no longer there."""
    there = {(body["kind"], body["metadata"]["name"]) for body in objects}
    listed = [
        *(("Expert", name) for name in target.experts),
        *(("Gate", name) for name in target.gates),
    ]
    return tuple(name for kind, name in listed if (kind, name) not in there)
