"""`kubectl moe set version`: changes the spec of an expert or a gate, as a manifest would."""

from __future__ import annotations

from argparse import Namespace

from kubectl_moe import advice, follow
from kubectl_moe.change import set_version as decide
from kubectl_moe.chronicle import past_of
from kubectl_moe.decide import Skip
from kubectl_moe.health import Diagnosis, Exit, diagnose
from kubectl_moe.names import described, resource
from kubectl_moe.session import Session, find


def set_version(args: Namespace, session: Session) -> Exit:
    """Apply it, or only have it checked; wait for the rollout where asked to."""
    cluster = session.cluster
    target = find(args.target, cluster, "Expert", "Gate")
    change = decide(target, past_of(target, cluster), args.version, args.uri, args.sha256)
    changed = target
    if isinstance(change, Skip):
        session.say(f"skipped set version: {change.why}")
    else:
        applied = cluster.apply(change, dry_run=args.dry_run)
        changed = {**applied, "kind": target["kind"]}
        checked = " (checked by the server, nothing changed)" if args.dry_run else ""
        session.say(f"{described(target)} asks for version {args.version}{checked}")
    if args.output == "name":
        session.print(resource(changed))
    elif args.output != "text":
        session.show(changed, args.output)

    def look() -> Diagnosis:
        return diagnose(cluster.get(target["kind"], target["metadata"]["name"]))

    if args.dry_run or isinstance(change, Skip):
        return Exit.HEALTHY
    if args.wait:
        return follow.wait(look, session.clock, args.timeout, session.progress)
    session.advise(advice.after_set(changed))
    return Exit.HEALTHY
