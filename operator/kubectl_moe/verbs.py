"""Carries out the verbs: reads objects, lets the pure modules decide, writes and prints."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from kubectl_moe import decide, draw, follow, listing
from kubectl_moe.cluster import Body, Cluster, NotFound
from kubectl_moe.health import EXITS, Diagnosis, Exit, Health, diagnose, worst
from kubectl_moe.names import Target, UsageError, parse_kind
from kubectl_moe.tree import MIXTURE_LABEL, Node, Objects, expert_node, members, mixture_node


@dataclass(frozen=True, slots=True)
class Session:
    """One run of the plugin: where to look, where to print, what time it is."""

    cluster: Cluster
    out: TextIO
    progress: TextIO
    clock: follow.Clock
    colour: bool

    def style(self) -> draw.Style:
        return draw.Style(self.colour, datetime.now(UTC))

    def print_json(self, value: Any) -> None:
        print(json.dumps(value, indent=2), file=self.out)


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


def history(args: Namespace, session: Session) -> Exit:
    """List the versions of an expert."""
    expert = _expert(args.target, session.cluster)
    past = _past(expert, session.cluster)
    if args.output == "json":
        items = [{"revision": p.revision, "version": p.version, "sha256": p.sha256} for p in past]
        session.print_json({"expert": expert["metadata"]["name"], "revisions": items})
    else:
        headers, cells = listing.history_rows(past, expert, datetime.now(UTC))
        print(draw.table(headers, cells), file=session.out)
    return Exit.HEALTHY


def override(args: Namespace, session: Session) -> Exit:
    """Create the Override that a verb stands for, or remove those that hold."""
    cluster = session.cluster
    expert = _expert(args.target, cluster)
    name, overrides = expert["metadata"]["name"], cluster.list("Override")
    created: Body | None = None
    if args.verb == "resume":
        _resume(expert, overrides, session)
    else:
        decision = _DECISIONS[args.verb](expert, overrides, args, session)
        if isinstance(decision, decide.Skip):
            print(f"skipped {args.verb}: {decision.why}", file=session.progress)
        else:
            decision["spec"]["requestedBy"] = cluster.user()
            created = cluster.create(decision)
            print(f"expert {name!r} {_PAST_TENSE[args.verb]}", file=session.progress)
    if args.output == "json":
        session.print_json(created or {})
    if not args.wait:
        return Exit.HEALTHY
    return _wait_for(args, created, expert, session)


def _wait_for(args: Namespace, created: Body | None, expert: Body, session: Session) -> Exit:
    """Wait until the Override was taken note of, then until the expert has settled."""
    cluster, name = session.cluster, expert["metadata"]["name"]
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
        body = cluster.get("Expert", name)
        if wanted and body.get("status", {}).get("version") == wanted:
            return Diagnosis(Health.HEALTHY, f"{name} serves {wanted}")
        return diagnose(body)

    return follow.wait(look, session.clock, args.timeout, session.progress, interval_s=0.1)


def _resume(expert: Body, overrides: list[Body], session: Session) -> None:
    name = expert["metadata"]["name"]
    names = decide.holding(expert, overrides)
    for held in names:
        session.cluster.delete("Override", held)
        print(f"removed Override {held}", file=session.progress)
    if not names:
        why = diagnose(expert)
        waits = f"; {why.why}" if why.health is Health.PAUSED else ""
        print(f"skipped resume: nothing holds expert {name!r}{waits}", file=session.progress)


def _rollback(
    expert: Body, overrides: list[Body], args: Namespace, session: Session
) -> dict[str, Any] | decide.Skip:
    past = _past(expert, session.cluster)
    return decide.rollback(expert, past, overrides, args.to, args.reason)


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
    "history": history,
    **dict.fromkeys((*_DECISIONS, "resume"), override),
}


def _expert(text: str, cluster: Cluster) -> Body:
    target = Target.parse(text)
    if target.kind not in (None, "Expert"):
        raise UsageError(f"{text!r} is a {target.kind}; this verb takes an expert")
    return {**cluster.get("Expert", target.name), "kind": "Expert"}


def _resolve(target: Target, cluster: Cluster) -> Target:
    """Find out the kind of a bare name: a mixture, else an expert. Raises NotFound."""
    if target.kind in ("Mixture", "Expert"):
        return target
    if target.kind is not None:
        raise UsageError(f"status shows mixtures and experts, not a {target.kind}")
    for kind in ("Mixture", "Expert"):
        try:
            cluster.get(kind, target.name)
            return Target(kind, target.name)
        except NotFound:
            continue
    where = f"namespace {cluster.namespace}"
    raise NotFound(f"there is no mixture and no expert {target.name!r} in {where}")


def _past(expert: Body, cluster: Cluster) -> tuple[decide.Past, ...]:
    selector = f"moeops.dev/expert={expert['metadata']['name']}"
    return decide.history(cluster.list("ControllerRevision", selector))


def _read(cluster: Cluster) -> Objects:
    return Objects(
        cluster.list("Mixture"),
        cluster.list("Gate"),
        cluster.list("Expert"),
        cluster.list("Deployment", MIXTURE_LABEL),
        cluster.list("Pod", MIXTURE_LABEL),
    )


def _look(target: Target, session: Session) -> tuple[Node, Diagnosis, list[Body]]:
    objects = _read(session.cluster)
    bodies = objects.mixtures if target.kind == "Mixture" else objects.experts
    body = next((b for b in bodies if b["metadata"]["name"] == target.name), None)
    if body is None:
        raise NotFound(f"there is no {target.kind} {target.name} any more")
    if target.kind == "Expert":
        return expert_node(body, objects), diagnose(body), [dict(body)]
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
