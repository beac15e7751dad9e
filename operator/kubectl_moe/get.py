"""`kubectl moe get`: lists objects, each kind as a table of its own."""

from __future__ import annotations

from argparse import Namespace
from datetime import UTC, datetime

from kubectl_moe import advice, draw, follow, listing
from kubectl_moe.cluster import Body
from kubectl_moe.health import Exit
from kubectl_moe.names import UsageError, parse_kind, resource
from kubectl_moe.session import Session

Found = dict[str, list[Body]]  # by kind


def get(args: Namespace, session: Session) -> Exit:
    """List objects."""
    if args.name and args.kind == "all":
        raise UsageError(f"of which kind is {args.name!r}? write: kubectl moe get KIND {args.name}")
    if args.name and args.all_namespaces:
        raise UsageError("an object is in one namespace; name it with -n, or leave its name out")
    if args.watch:
        look = lambda: _tables(_read(args, session), args, session)  # noqa: E731
        follow.redraw(look, session.clock, session.out)
    found = _read(args, session)
    bodies = [body for of_kind in found.values() for body in of_kind]
    if args.output == "name":
        for body in bodies:
            session.print(resource(body))
    elif args.output in ("json", "yaml"):
        session.show({"items": bodies}, args.output)
    elif bodies:
        session.print(_tables(found, args, session))
        session.advise(() if args.all_namespaces else advice.after_get(bodies))
    else:
        session.say(_nothing(args, session))
        session.advise(() if args.all_namespaces else advice.after_get(bodies))
    return Exit.HEALTHY


def _read(args: Namespace, session: Session) -> Found:
    kinds = list(listing.COLUMNS) if args.kind == "all" else [parse_kind(args.kind)]
    if args.name:
        return {kind: [{**session.cluster.get(kind, args.name), "kind": kind}] for kind in kinds}
    cluster = session.everywhere() if args.all_namespaces else session.cluster
    return {kind: cluster.list(kind) for kind in kinds}


def _tables(found: Found, args: Namespace, session: Session) -> str:
    now, wide, everywhere = datetime.now(UTC), args.output == "wide", args.all_namespaces
    tables = [
        draw.table(*listing.rows(kind, bodies, now, wide=wide, namespaces=everywhere))
        for kind, bodies in found.items()
        if bodies
    ]
    return "\n\n".join(tables) or _nothing(args, session)


def _nothing(args: Namespace, session: Session) -> str:
    where = "any namespace" if args.all_namespaces else f"namespace {session.cluster.namespace}"
    return f"nothing found in {where}"
