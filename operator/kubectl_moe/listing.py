"""The rows of `kubectl moe get` and `history`: pure, bodies in, cells out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from kubectl_moe.decide import Past
from kubectl_moe.draw import age
from kubectl_moe.health import diagnose

Body = Mapping[str, Any]
Column = tuple[str, Callable[[Body], str]]


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


def _age(body: Body, now: datetime) -> str:
    return age(body["metadata"].get("creationTimestamp", ""), now)


def _health(body: Body) -> str:
    return diagnose(body).health.value


def _step(body: Body) -> str:
    rollout = body.get("status", {}).get("rollout", {})
    return f"{rollout['step']}/{rollout['steps']}" if rollout.get("steps") else "-"


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
        ("VERSION", _spec("version")),
        ("STATE", _status("state")),
        ("BY", _spec("requestedBy")),
    ),
}


def rows(kind: str, bodies: Sequence[Body], now: datetime) -> tuple[list[str], list[list[str]]]:
    """Return headers and rows for objects of one kind."""
    columns = COLUMNS[kind]
    cells = [
        [_name(body), *(read(body) for _, read in columns), _age(body, now)] for body in bodies
    ]
    return ["NAME", *(title for title, _ in columns), "AGE"], cells


def history_rows(
    past: Sequence[Past], expert: Body, now: datetime
) -> tuple[list[str], list[list[str]]]:
    """Return the revisions of an expert, newest first, and what each is now."""
    status = expert.get("status", {})
    rollout = status.get("rollout", {})

    def state(entry: Past) -> str:
        if entry.sha256 == status.get("sha256"):
            return "stable"
        if entry.version == status.get("candidate"):
            return f"candidate at {status.get('weight', '0%')}"
        if entry.sha256 == rollout.get("sha256"):
            return str(rollout.get("outcome", ""))
        return ""

    cells = [
        [str(p.revision), p.version, p.sha256[:10], state(p), age(p.created, now)]
        for p in reversed(past)
    ]
    return ["REVISION", "VERSION", "SHA256", "STATE", "AGE"], cells
