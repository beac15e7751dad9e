"""`kubectl moe status`: a mixture, a gate or an expert as a tree; watched or waited for."""

from __future__ import annotations

from argparse import Namespace

from kubectl_moe import advice, draw, follow
from kubectl_moe.cluster import Body, Cluster, NotFound
from kubectl_moe.health import EXITS, Diagnosis, Exit, diagnose, worst
from kubectl_moe.names import Target, UsageError, resource
from kubectl_moe.session import Session
from kubectl_moe.tree import (
    MIXTURE_LABEL,
    Node,
    Objects,
    expert_node,
    gate_node,
    members,
    mixture_node,
)


def status(args: Namespace, session: Session) -> Exit:
    """Show a tree; watch it or wait for it where asked to."""
    target = _resolve(Target.parse(args.target), session.cluster)
    if args.watch:
        follow.redraw(
            lambda: draw.tree(look_at(target, session)[0], session.style()),
            session.clock,
            session.out,
        )
    if args.wait:
        code = follow.wait(
            lambda: look_at(target, session)[1], session.clock, args.timeout, session.progress
        )
        _show(target, args.output, session)
        return code
    return EXITS[_show(target, args.output, session).health]


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


def look_at(target: Target, session: Session) -> tuple[Node, Diagnosis, list[Body]]:
    """Return the tree of an object, how it is, and its body before those of its parts.

    Raises NotFound where it is gone.
    """
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


def _show(target: Target, output: str, session: Session) -> Diagnosis:
    node, diagnosis, bodies = look_at(target, session)
    if output == "name":
        for body in bodies:
            session.print(resource(body))
    elif output != "text":
        session.show({"health": diagnosis.health, "why": diagnosis.why, "items": bodies}, output)
    else:
        session.print(draw.tree(node, session.style()))
        session.advise(advice.after_status(bodies[0], diagnosis, bodies))
    return diagnosis
