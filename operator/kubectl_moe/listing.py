"""The rows of `kubectl moe get` and `history`: pure, bodies in, cells out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from kubectl_moe.draw import age
from kubectl_moe.health import diagnose
from kubectl_moe.past import Epoch, Past, changes, readable

Body = Mapping[str, Any]
Column = tuple[str, Callable[[Body], str]]
Table = tuple[list[str], list[list[str]]]  # headers, rows


def _status(key: str) -> Callable[[Body], str]:
    return lambda body: str(body.get("status", {}).get(key) or "-")


def _spec(*keys: str) -> Callable[[Body], str]:
    def read(body: Body) -> str:
        value: Any = body["spec"]
        for key in keys:
            value = value.get(key, {})
        return str(value or "-")

    return read


def _name(body: Body) -> str:
    return str(body["metadata"]["name"])


def _namespace(body: Body) -> str:
    return str(body["metadata"].get("namespace") or "-")


def _age(now: datetime) -> Callable[[Body], str]:
    return lambda body: age(body["metadata"].get("creationTimestamp", ""), now)


def _why(body: Body) -> str:
    return diagnose(body).why or "-"


def _listed(gate: Body) -> str:
    return str(len(gate["spec"].get("experts", ())))


def _scaled(expert: Body) -> str:
    return str(expert.get("status", {}).get("autoscaling", {}).get("message") or "-")


def _health(body: Body) -> str:
    return diagnose(body).health.value


def _step(body: Body) -> str:
    rollout = body.get("status", {}).get("rollout", {})
    return f"{rollout['step']}/{rollout['steps']}" if rollout.get("steps") else "-"


def _asked(override: Body) -> str:
    """Return the version that an Override asks for, or the epoch."""
    spec = override["spec"]
    return f"epoch {spec['epoch']}" if "epoch" in spec else str(spec.get("version") or "-")


COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "Mixture": (
        ("EXPERTS", _status("experts")),
        ("ROUTERS", _status("routers")),
        ("EPOCH", _status("epoch")),
        ("STATUS", _health),
    ),
    "Gate": (
        ("MIXTURE", _spec("mixtureRef", "name")),
        ("VERSION", _status("version")),
        ("WANTED", _spec("version")),
        ("POLICY", _spec("policy", "type")),
        ("STATUS", _health),
    ),
    "Expert": (
        ("MIXTURE", _spec("mixtureRef", "name")),
        ("ID", _spec("expertId")),
        ("VERSION", _status("version")),
        ("WANTED", _spec("version")),
        ("CANDIDATE", _status("candidate")),
        ("STEP", _step),
        ("WEIGHT", _status("weight")),
        ("READY", _status("ready")),
        ("STATUS", _health),
    ),
    "Override": (
        ("TARGET", _spec("targetRef", "name")),
        ("ACTION", _spec("action")),
        ("VERSION", _asked),
        ("STATE", _status("state")),
        ("BY", _spec("requestedBy")),
        ("MESSAGE", _status("message")),
    ),
}


# What -o wide shows beside that.
_WIDE: Mapping[str, tuple[Column, ...]] = {
    "Mixture": (
        ("LAYERS", _spec("layers")),
        ("HIDDEN", _spec("hiddenSize")),
        ("DTYPE", _spec("dtype")),
        ("WHY", _why),
    ),
    "Gate": (
        ("CANDIDATE", _status("candidate")),
        ("WEIGHT", _status("weight")),
        ("TOP-K", _spec("policy", "topK")),
        ("EXPERTS", _listed),
        ("SHA256", _status("sha256")),
        ("WHY", _why),
    ),
    "Expert": (
        ("ROLE", _spec("role")),
        ("SHA256", _status("sha256")),
        ("SCALED", _scaled),
        ("WHY", _why),
    ),
    "Override": (
        ("KIND", _spec("targetRef", "kind")),
        ("INSTEAD-OF", _spec("insteadOf")),
        ("REASON", _spec("reason")),
    ),
}


def rows(
    kind: str,
    bodies: Sequence[Body],
    now: datetime,
    *,
    wide: bool = False,
    namespaces: bool = False,
) -> Table:
    """Return headers and rows for objects of one kind."""
    columns: tuple[Column, ...] = (("NAME", _name), *COLUMNS[kind], ("AGE", _age(now)))
    if namespaces:
        columns = (("NAMESPACE", _namespace), *columns)
    if wide:
        columns = (*columns, *_WIDE[kind])
    cells = [[read(body) for _, read in columns] for body in bodies]
    return [title for title, _ in columns], cells


def history_rows(past: Sequence[Past], expert: Body, now: datetime, *, wide: bool = False) -> Table:
    """Return the revisions of an expert, newest first; in a wide table digests are whole."""
    cells = []
    for each in reversed(past):
        entry = past_entry(each, expert)
        when = age(each.at or each.created, now)
        why = f"unreadable: {each.unreadable}" if each.unreadable else entry["why"]
        digest = each.sha256 if wide else each.sha256[:10]
        shown = [each.version, digest, entry["outcome"], entry["now"], when, each.by, why]
        shown += [each.uri] if wide else []
        cells.append([str(each.revision), *(cell or "-" for cell in shown)])
    titles = ["REVISION", "VERSION", "SHA256", "OUTCOME", "NOW", "WHEN", "BY", "WHY"]
    return [*titles, "URI"] if wide else titles, cells


def past_entry(past: Past, expert: Body) -> dict[str, Any]:
    """Return what is told of a revision, and what it is now; without its template."""
    status = expert.get("status", {})
    rollout = status.get("rollout", {})
    current = past.revision == rollout.get("revision")
    now = ""
    if past.sha256 and past.sha256 == status.get("sha256"):
        now = "stable"
    elif past.version and past.version == status.get("candidate"):
        now = f"candidate at {status.get('weight', '0%')}"
    entry = {name: getattr(past, name) for name in _TOLD}
    entry["outcome"] = past.outcome or (rollout.get("outcome", "") if current else "")
    entry["why"] = past.why or (rollout.get("message", "") if current else "")
    return {**entry, "now": now}


_TOLD = (
    *("revision", "version", "sha256", "uri", "created"),
    *("outcome", "at", "why", "by", "unreadable"),
)


def epoch_rows(past: Sequence[Epoch], now: datetime) -> Table:
    """Return the epochs of a mixture that are kept, newest first, and what each changed."""
    cells, before = [], None
    known = readable(past)
    for each in past:
        said = f"unreadable: {each.unreadable}"
        if not each.unreadable:
            said, before = "; ".join(changes(before, each)), each
        served = "served" if known and each is known[-1] else "-"
        cells.append([str(each.epoch), served, age(each.created, now), said])
    return ["EPOCH", "NOW", "WHEN", "CHANGES"], cells[::-1]


def epoch_objects(epoch: Epoch) -> Table:
    """Return the versions that an epoch served."""
    cells = [
        *(
            ["Gate", name, row.stable.version, row.stable.sha256[:10], row.stable.uri]
            for name, row in epoch.gates.items()
        ),
        *(
            ["Expert", name, version.version, version.sha256[:10], version.uri]
            for name, version in epoch.experts.items()
        ),
    ]
    return ["KIND", "NAME", "VERSION", "SHA256", "URI"], cells
