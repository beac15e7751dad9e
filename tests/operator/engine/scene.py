"""Where a scenario plays: in the replay, where time is an argument, or on a real API server.

Also what an outsider can tell of a scene afterwards, in words that are the same for both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from moe_operator.cluster import Conflict, NotFound
from moe_operator.kinds import (
    BUDGET,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    EXPERT,
    GATE,
    MIXTURE,
    NETWORK_POLICY,
    OVERRIDE,
    POD,
    ROLE,
    ROLE_BINDING,
    ROUTING_TABLE,
    SERVICE,
    SERVICE_ACCOUNT,
    Body,
    Kind,
    metadata,
)
from moe_operator.snapshots import is_snapshot
from tests.operator.engine.bodies import sha
from tests.operator.kube.nodes import Api, Nodes, sha256_of
from tests.support.whole import is_part, whole_table

_OWNED = (
    *(CONTROLLER_REVISION, DEPLOYMENT, BUDGET, NETWORK_POLICY),
    *(SERVICE, SERVICE_ACCOUNT, ROLE_BINDING, ROLE),
)


class Scene(Protocol):
    """One namespace, its nodes and clients; the operator comes and goes."""

    @property
    def api(self) -> Api: ...

    @property
    def namespace(self) -> str: ...

    @property
    def nodes(self) -> Nodes: ...

    @property
    def clients(self) -> Clients: ...

    async def put(self, *bodies: Mapping[str, Any]) -> None:
        """Create or change objects, as people do."""
        ...

    async def until(self, check: Callable[[Body], object]) -> None:
        """Let time pass until the table's spec, empty without a table, is so."""
        ...

    async def passes(self, seconds: float) -> None:
        """Let time pass."""
        ...

    async def rest(self) -> None:
        """Let time pass until nobody has anything to do."""
        ...

    async def operate(self, running: bool) -> None:
        """Start the operator, or end it wherever it is."""
        ...

    async def end(self, ending: bool) -> None:
        """Let the namespace begin to end, so that nothing is created in it; or make it anew."""
        ...


@dataclass(slots=True)
class Clients:
    """Who asks the versions that the table names; answers of `bad` ones are not finite.

    A bad version answers only once sessions see it.
    """

    nodes: Nodes
    bad: str = ""  # letters of digests
    ask: bool = False

    def turn(self) -> None:
        """Ask everybody once."""
        table = self.nodes.table("tiny")
        for letter in "abcd" if self.ask else "":
            if table is None:
                return
            if letter not in self.bad:
                self.nodes.count(sha(letter), requests=10, rows=100)
            elif any(_on_trial(row, letter) for row in table["experts"]):
                self.nodes.count(sha(letter), requests=10, rows=100, nonfinite_rows=2)


def _on_trial(row: Mapping[str, Any], letter: str) -> bool:
    candidate, weights = row.get("candidate") or {}, row.get("rollout", {}).get("weights")
    return candidate.get("sha256") == sha(letter) and bool(weights)


async def remove(scene: Scene, kind: Kind, name: str) -> None:
    """Delete an object, also one that is in use, and what it owns."""
    note = {"metadata": {"annotations": {"moeops.dev/delete-anyway": "yes"}}}
    body = await scene.api.merge(kind, scene.namespace, name, note)
    await scene.api.delete(kind, body)
    for owned in _OWNED:
        for child in (await scene.api.list_all(owned, scene.namespace, brief=False))[0]:
            owners = metadata(child).get("ownerReferences") or ()
            if any(owner["uid"] == metadata(body)["uid"] for owner in owners):
                await scene.api.delete(owned, child)


async def empty(scene: Scene) -> None:
    """Delete all that is in the namespace, as its end does: nothing is spared for being in use.

    The table goes first: until the last object has gone the operator would have it again.
    """
    for kind in (ROUTING_TABLE, *_OWNED, POD, OVERRIDE, EXPERT, GATE, MIXTURE):
        while left := (await scene.api.list_all(kind, scene.namespace, brief=False))[0]:
            for body in left:
                with contextlib.suppress(Conflict, NotFound):
                    await scene.api.delete(kind, body)


async def lose_pods(scene: Scene, letter: str) -> None:
    """Delete all pods of a version; those that come in their place do not serve."""
    scene.nodes.stuck.add(sha(letter))
    for pod in (await scene.api.list_all(POD, scene.namespace, brief=False))[0]:
        if sha256_of(pod) == sha(letter):
            await scene.api.delete(POD, pod)


async def outcome(scene: Scene) -> dict[str, Any]:
    """Return what an outsider can tell, without times."""

    async def all_of(kind: Kind) -> list[Body]:
        return (await scene.api.list_all(kind, scene.namespace, brief=False))[0]

    pods = [_name(pod) for pod in await all_of(POD)]
    kept = await all_of(CONTROLLER_REVISION)
    parts = [body for body in kept if is_part(body)]
    try:
        stored = await scene.api.get(ROUTING_TABLE, scene.namespace, "tiny")
        table, named = whole_table(stored, parts)["spec"], stored["spec"].get("parts", ())
    except NotFound:
        table, named = {"experts": (), "gates": (), "epoch": 0}, ()
    epochs = [revision for revision in kept if is_snapshot(revision)]
    told = {kind.name: await all_of(kind) for kind in (MIXTURE, EXPERT, GATE)}
    return {
        "experts": {row["expertId"]: _row(row) for row in table["experts"]},
        "gates": {
            row["name"]: (row["stable"]["version"], row["stable"]["experts"])
            for row in table["gates"]
        },
        "epoch": table["epoch"],
        "deployments": {_name(d): d["spec"]["replicas"] for d in await all_of(DEPLOYMENT)},
        "evaluators": sorted(name for name in pods if "-eval-" in name),
        "revisions": sorted(_name(r) for r in kept if r not in epochs and r not in parts),
        "parts in vain": len(parts) - len(named),
        # Not their numbers: pods that come up a moment apart take one more of them.
        "epochs": [_versions(r) for r in sorted(epochs, key=lambda r: int(r["revision"]))],
        "conditions": {_name(b): _conditions(b) for bodies in told.values() for b in bodies},
        "in use": {_name(b): b["status"].get("inUse") for b in told["Expert"] + told["Gate"]},
        "overrides": {_name(o): o["status"]["state"] for o in await all_of(OVERRIDE)},
    }


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    rollout = row.get("rollout") or {}
    parts = ("stable", "candidate", "previous")
    return {
        **{part: (row.get(part) or {}).get("version") for part in parts},
        "revoked": row.get("revoked"),
        **{field: rollout.get(field) for field in ("outcome", "revision", "step")},
        "weights": [weight["percent"] for weight in rollout.get("weights", ())],
    }


def _versions(snapshot: Body) -> dict[str, str]:
    experts: Mapping[str, Any] = snapshot["data"]["experts"]
    return {name: version["version"] for name, version in experts.items()}


def _conditions(body: Body) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in body["status"]["conditions"]}


def _name(body: Body) -> str:
    return str(metadata(body)["name"])
