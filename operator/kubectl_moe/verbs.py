"""Carries out the verbs: reads objects, lets the pure modules decide, writes and prints."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from kubectl_moe import chronicle, decide, draw, follow, listing, restore
from kubectl_moe.cluster import Body, Cluster, NotFound
from kubectl_moe.health import EXITS, Diagnosis, Exit, Health, diagnose, worst
from kubectl_moe.names import Target, UsageError, parse_kind
from kubectl_moe.routing import routing
from kubectl_moe.session import Session, find
from kubectl_moe.tree import (
    MIXTURE_LABEL,
    Node,
    Objects,
    expert_node,
    gate_node,
    members,
    mixture_node,
)


def get(args: Namespace, session: Session) -> Exit:
    """List objects, each kind as a table of its own."""
    kinds = list(listing.COLUMNS) if args.kind == "all" else [parse_kind(args.kind)]
    found: dict[str, list[Body]] = {}
    for kind in kinds:
        if args.name:
            found[kind] = [{**session.cluster.get(kind, args.name), "kind": kind}]
        else:
            found[kind] = session.cluster.list(kind)
    if args.output == "json":
        session.print_json({"items": [body for bodies in found.values() for body in bodies]})
        return Exit.HEALTHY
    tables = [
        draw.table(*listing.rows(kind, bodies, datetime.now(UTC)))
        for kind, bodies in found.items()
        if bodies
    ]
    nothing = f"nothing found in namespace {session.cluster.namespace}"
    print("\n\n".join(tables) or nothing, file=session.out)
    return Exit.HEALTHY


def status(args: Namespace, session: Session) -> Exit:
    """Show a tree; watch it or wait for it where asked to."""
    target = _resolve(Target.parse(args.target), session.cluster)
    if args.watch:
        follow.redraw(lambda: _draw(target, session)[0], session.clock, session.out)
    if args.wait:
        code = follow.wait(
            lambda: _look(target, session)[1], session.clock, args.timeout, session.progress
        )
        _show(target, args.output, session)
        return code
    return EXITS[_show(target, args.output, session).health]


def override(args: Namespace, session: Session) -> Exit:
    """Create the Override that a verb stands for, or remove those that hold."""
    cluster = session.cluster
    kinds: tuple[str, ...] = ("Expert", "Gate")
    if args.verb in ("rollback", "resume"):
        kinds = ("Expert", "Gate", "Mixture")
    target = find(args.target, cluster, *kinds)
    what = f"{target['kind'].lower()} {target['metadata']['name']!r}"
    overrides = cluster.list("Override")
    created: Body | None = None
    if args.verb == "resume":
        _resume(target, overrides, session)
    else:
        decision = _DECISIONS[args.verb](target, overrides, args, session)
        if isinstance(decision, decide.Skip):
            session.say(f"skipped {args.verb}: {decision.why}")
        else:
            decision["spec"]["requestedBy"] = cluster.user()
            created = cluster.create(decision)
            session.say(f"{what} {_PAST_TENSE[args.verb]}")
    if args.output == "json":
        session.print_json(created or {})
    if not args.wait:
        return Exit.HEALTHY
    return _wait_for(args, created, target, session)


def _wait_for(args: Namespace, created: Body | None, target: Body, session: Session) -> Exit:
    """Wait until the Override was taken note of, then until the object has settled."""
    cluster, name = session.cluster, target["metadata"]["name"]
    wanted = (created or {}).get("spec", {}).get("version")

    def look() -> Diagnosis:
        if created is not None:
            seen = cluster.get("Override", created["metadata"]["name"])
            state = seen.get("status", {}).get("state", "Pending")
            message = seen.get("status", {}).get("message", "")
            if state in ("Refused", "Lapsed"):
                return Diagnosis(Health.DEGRADED, f"Override {state}: {message}")
            if state == "Pending":
                return Diagnosis(Health.PROGRESSING, message or "the operator has not seen it yet")
            if target["kind"] == "Mixture":
                return Diagnosis(Health.HEALTHY, message)
        if target["kind"] == "Mixture":
            return _look(Target("Mixture", name), session)[1]
        body = cluster.get(target["kind"], name)
        if wanted and body.get("status", {}).get("version") == wanted:
            return Diagnosis(Health.HEALTHY, f"{name} serves {wanted}")
        return diagnose(body)

    return follow.wait(look, session.clock, args.timeout, session.progress, interval_s=0.1)


def _resume(target: Body, overrides: list[Body], session: Session) -> None:
    names = decide.holding(target, overrides)
    for held in names:
        session.cluster.delete("Override", held)
        session.say(f"removed Override {held}")
    if not names:
        what = f"{target['kind'].lower()} {target['metadata']['name']!r}"
        why = diagnose(target)
        waits = f"; {why.why}" if why.health is Health.PAUSED else ""
        session.say(f"skipped resume: nothing holds {what}{waits}")


def _rollback(
    target: Body, overrides: list[Body], args: Namespace, session: Session
) -> dict[str, Any] | decide.Skip:
    cluster = session.cluster
    if target["kind"] != "Mixture":
        past = chronicle.past_of(target, cluster)
        return decide.rollback(target, past, overrides, args.to, args.reason)
    kept = chronicle.epochs_of(target, cluster)
    objects = [
        body
        for kind in ("Expert", "Gate")
        for body in cluster.list(kind)
        if body["spec"]["mixtureRef"]["name"] == target["metadata"]["name"]
    ]
    decision = restore.restore(target, kept, objects, overrides, args.to, args.reason)
    if isinstance(decision, dict):
        epoch = next(each for each in kept if each.epoch == decision["spec"]["epoch"])
        for name in restore.gone(epoch, objects):
            session.say(f"{name} of epoch {epoch.epoch} is gone: it stays so")
    return decision


def _pause(
    expert: Body, overrides: list[Body], args: Namespace, session: Session
) -> dict[str, Any] | decide.Skip:
    return decide.pause(expert, overrides, args.reason)


def _once(
    expert: Body, overrides: list[Body], args: Namespace, session: Session
) -> dict[str, Any] | decide.Skip:
    return decide.once(args.verb.capitalize(), expert, overrides, args.reason)


_DECISIONS: Mapping[str, Callable[..., dict[str, Any] | decide.Skip]] = {
    "rollback": _rollback,
    "pause": _pause,
    "promote": _once,
    "abort": _once,
    "retry": _once,
}
_PAST_TENSE = {
    "rollback": "rolled back",
    "pause": "paused",
    "promote": "promoted",
    "abort": "aborted",
    "retry": "retried",
}

VERBS: Mapping[str, Callable[[Namespace, Session], Exit]] = {
    "get": get,
    "status": status,
    "history": chronicle.history,
    "diff": chronicle.diff,
    "routing": routing,
    **dict.fromkeys((*_DECISIONS, "resume"), override),
}


def _resolve(target: Target, cluster: Cluster) -> Target:
    """Find out the kind of a bare name: a mixture, else an expert. Raises NotFound."""
    if target.kind in ("Mixture", "Gate", "Expert"):
        return target
    if target.kind is not None:
        raise UsageError(f"status shows mixtures, gates and experts, not an {target.kind}")
    for kind in ("Mixture", "Expert"):
        try:
            cluster.get(kind, target.name)
            return Target(kind, target.name)
        except NotFound:
            continue
    where = f"namespace {cluster.namespace}"
    raise NotFound(f"there is no mixture and no expert {target.name!r} in {where}")


def _read(cluster: Cluster) -> Objects:
    return Objects(
        cluster.list("Mixture"),
        cluster.list("Gate"),
        cluster.list("Expert"),
        cluster.list("Deployment", MIXTURE_LABEL),
        cluster.list("Pod", MIXTURE_LABEL),
        cluster.list("Override"),
    )


def _look(target: Target, session: Session) -> tuple[Node, Diagnosis, list[Body]]:
    objects = _read(session.cluster)
    kinds = {"Mixture": objects.mixtures, "Gate": objects.gates}
    bodies = kinds.get(target.kind or "", objects.experts)
    body = next((b for b in bodies if b["metadata"]["name"] == target.name), None)
    if body is None:
        raise NotFound(f"there is no {target.kind} {target.name} any more")
    if target.kind == "Expert":
        return expert_node(body, objects), diagnose(body), [dict(body)]
    if target.kind == "Gate":
        return gate_node(body, objects), diagnose(body), [dict(body)]
    parts = [dict(part) for part in members(body, objects)]
    return mixture_node(body, objects), worst(diagnose(part) for part in parts), parts


def _draw(target: Target, session: Session) -> tuple[str, Diagnosis, list[Body]]:
    node, diagnosis, bodies = _look(target, session)
    return draw.tree(node, session.style()), diagnosis, bodies


def _show(target: Target, output: str, session: Session) -> Diagnosis:
    text, diagnosis, bodies = _draw(target, session)
    if output == "json":
        report = {"health": diagnosis.health, "why": diagnosis.why, "items": bodies}
        session.print_json(report)
    else:
        print(text, file=session.out)
    return diagnosis
