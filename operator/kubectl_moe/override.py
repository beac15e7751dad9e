"""The verbs that stand for an Override: a person's decision about what is served.

Reads objects, lets the pure modules decide, writes the Override or removes those that hold.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

from kubectl_moe import advice, chronicle, decide, follow, restore
from kubectl_moe.cluster import Body, who
from kubectl_moe.health import Diagnosis, Exit, Health, diagnose
from kubectl_moe.names import Target, described, resource
from kubectl_moe.session import Session, find
from kubectl_moe.status import look_at


def override(args: Namespace, session: Session) -> Exit:
    """Create the Override that a verb stands for, or remove those that hold."""
    cluster = session.cluster
    kinds: tuple[str, ...] = ("Expert", "Gate")
    if args.verb in ("rollback", "resume"):
        kinds = ("Expert", "Gate", "Mixture")
    target = find(args.target, cluster, *kinds)
    overrides = cluster.list("Override")
    created: Body | None = None
    changed: list[Body] = []
    if args.verb == "resume":
        changed = _resume(target, overrides, session)
    else:
        decision = _DECISIONS[args.verb](target, overrides, args, session)
        if isinstance(decision, decide.Skip):
            session.say(f"skipped {args.verb}: {decision.why}")
        else:
            decision["spec"]["requestedBy"] = who(cluster)
            created = {**cluster.create(decision), "kind": "Override"}
            changed = [created]
            session.say(f"{described(target)} {_PAST_TENSE[args.verb]}")
    if args.output == "name":
        for body in changed:
            session.print(resource(body))
    elif args.output != "text":
        session.show(created or {}, args.output)
    if args.wait:
        return _wait_for(args, created, target, session)
    session.advise(advice.after_decision(args.verb, target))
    return Exit.HEALTHY


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
            return look_at(Target("Mixture", name), session)[1]
        body = cluster.get(target["kind"], name)
        if wanted and body.get("status", {}).get("version") == wanted:
            return Diagnosis(Health.HEALTHY, f"{name} serves {wanted}")
        return diagnose(body)

    return follow.wait(look, session.clock, args.timeout, session.progress, interval_s=0.1)


def _resume(target: Body, overrides: list[Body], session: Session) -> list[Body]:
    """Remove what holds, and return it."""
    names = decide.holding(target, overrides)
    for held in names:
        session.cluster.delete("Override", held)
        session.say(f"removed Override {held}")
    if not names:
        why = diagnose(target)
        waits = f"; {why.why}" if why.health is Health.PAUSED else ""
        session.say(f"skipped resume: nothing holds {described(target)}{waits}")
    return [body for body in overrides if body["metadata"]["name"] in names]


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
