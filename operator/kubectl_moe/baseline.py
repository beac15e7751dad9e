"""`kubectl moe baseline`: how a gate spreads rows over experts now, as `spec.drift` of its Gate.

Printed, not applied: what a Gate's routing is compared with belongs to its manifest. It is the
version that is served that is read, and what is known of other versions stays beside it.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final

from kubectl_moe.asking import ask
from kubectl_moe.cluster import Body, ClusterError
from kubectl_moe.decide import Refused
from kubectl_moe.gate_loads import Load, Of, Reading, between, total
from kubectl_moe.health import Exit
from kubectl_moe.routing_view import digests
from kubectl_moe.session import Routers, Session, find
from moe_core.drift import FEWEST_GROUPS, GROUPS, groups_seen, spread

_MOST: Final = 4  # baselines of a Gate


def baseline(args: Namespace, session: Session) -> Exit:
    """Print a patch of the Gate."""
    gate = find(args.gate, session.cluster, "Gate")
    with closing(session.reach()) as routers:
        table, loads = _read(gate["spec"]["mixtureRef"]["name"], args.window, session, routers)
    new = _baseline(_served(gate, table), loads, session)
    known = gate["spec"].get("drift", {}).get("baselines", ())
    others = [one for one in known if one["sha256"] != new["sha256"]]
    patch = {"spec": {"drift": {"baselines": [new, *others][:_MOST]}}}
    if args.output != "text":
        session.show(patch, args.output)
    else:
        session.print("\n".join(_written(gate["metadata"]["name"], patch)))
    return Exit.HEALTHY


def _read(
    mixture: str, window_s: float | None, session: Session, routers: Routers
) -> tuple[Body, Mapping[Of, Load]]:
    """Return the table, and what all routers counted, in a window to come or since they started.

    Raises ClusterError where one does not answer: what it chose is missing.
    """
    table, (readings, silent) = _counted(mixture, session, routers)
    if window_s is not None and not silent:
        session.say(f"counting for {window_s:.0f} s")
        session.clock.sleep(window_s)
        table, (later, silent) = _counted(mixture, session, routers)
        readings = between(readings, later)
    if silent:
        raise ClusterError(f"not all routers answer: {'; '.join(silent)}")
    return table, total(readings)


def _counted(
    mixture: str, session: Session, routers: Routers
) -> tuple[Body, tuple[tuple[Reading, ...], Sequence[str]]]:
    """Return the table, and what routers say of the gates that it names."""
    table = session.cluster.get("RoutingTable", mixture)
    return table, ask(session.cluster, routers, mixture, digests(table), grouped=True)


def _served(gate: Body, table: Body) -> Body:
    name = gate["metadata"]["name"]
    row = next((row for row in table["spec"]["gates"] if row["name"] == name), None)
    if row is None:
        raise Refused(f"gate {name!r} is not served yet")
    return {"name": name, **row["stable"]}


def _baseline(served: Body, loads: Mapping[Of, Load], session: Session) -> dict[str, Any]:
    """Return the baseline of a version. Raises Refused where too few sessions were seen."""
    own = {
        of: load
        for of, load in loads.items()
        if (of.gate, of.sha256, of.shadow) == (served["name"], served["sha256"], False)
    }
    layers = []
    for of in sorted(own, key=lambda one: (one.layer, one.context)):
        load, found = own[of], spread(own[of].groups, len(own[of].pairs))
        if found is not None:
            about = {"context": of.context} if of.context else {}
            effective = max(int(found.effective), 1)
            entry = {"layer": of.layer, **about, "effectivePairs": effective}
            layers.append({**entry, "pairs": list(load.pairs)})
        elif of.context:
            session.say(f"left out: {_too_few(of, load)}")
        else:
            raise Refused(_too_few(of, load))
    if not layers:
        raise Refused(f"no rows were chosen for by {served['version']}: try a longer --window")
    return {"version": served["version"], "sha256": served["sha256"], "layers": layers}


def _too_few(of: Of, load: Load) -> str:
    about = f", context {of.context}" if of.context else ""
    seen = groups_seen(load.groups, len(load.pairs))
    return (
        f"layer {of.layer}{about}: {load.rows} rows are of too few sessions ({seen:.1f} of "
        f"{GROUPS} groups of them, {FEWEST_GROUPS:.0f} are needed): try a longer --window"
    )


def _written(name: str, patch: Body) -> Iterator[str]:
    """Give the lines of a patch in YAML, with one for each layer."""
    yield f"# How gate {name} spreads rows over experts. Copy it into its manifest, or:"
    yield f"# kubectl patch gate {name} --type merge --patch-file FILE"
    yield "spec:"
    yield "  drift:"
    yield "    baselines:"
    for one in patch["spec"]["drift"]["baselines"]:
        yield f"    - sha256: {json.dumps(one['sha256'])}"
        if "version" in one:
            yield f"      version: {json.dumps(one['version'])}"
        yield "      layers:"
        for layer in one["layers"]:
            fields = (f"{key}: {json.dumps(value)}" for key, value in layer.items())
            yield f"      - {{{', '.join(fields)}}}"
