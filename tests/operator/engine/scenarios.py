"""What people do to a mixture that is served, and to one that is not yet: step by step.

A scenario waits only for what the table says, or until all is quiet, so that an undisturbed
operator takes the same steps in the replay and on a real API server. Many are those of Argo
Rollouts' end-to-end tests, with our nouns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from moe_operator.kinds import EXPERT, GATE, MIXTURE, OVERRIDE, Body
from tests.operator.engine.bodies import expert, gate, golden_set, mixture, override, sha
from tests.operator.engine.scene import Scene, empty, lose_pods, remove

Scenario = Callable[[Scene], Awaitable[None]]

QUICK = {
    "steps": [{"weightPercent": 25, "pauseSeconds": 1}, {"weightPercent": 100, "pauseSeconds": 1}],
    "minRequests": 10,
    "scaleDownDelaySeconds": 1,
}
LETTERS = {"v1": "a", "v2": "b", "v3": "d"}


def version(name: str, **spec: Any) -> Body:
    """Return e0 as it is to be."""
    digest = sha(LETTERS[name])
    return expert("e0", digest, name, **{"backupExpertId": "e1", "rollout": QUICK, **spec})


def start() -> list[Body]:
    return [mixture(), version("v1"), expert("e1", sha("c")), gate("e0", "e1")]


def _e0(table: Body) -> dict[str, Any]:
    rows = table.get("experts", ())
    return next((row for row in rows if row["expertId"] == "e0"), {})


def _begun(name: str, revision: int = 0) -> Callable[[Body], bool]:
    """Whether this version is on trial, of this revision if one is given."""

    def check(table: Body) -> bool:
        rollout = _e0(table).get("rollout") or {}
        named = rollout.get("target", {}).get("version") == name
        return (
            named and rollout["outcome"] == "Progressing" and revision in (0, rollout["revision"])
        )

    return check


def _seen(name: str, revision: int = 0) -> Callable[[Body], bool]:
    """Whether sessions see this version as a candidate."""
    begun = _begun(name, revision)
    return lambda table: begun(table) and _e0(table)["rollout"]["weights"]


def _stable(name: str) -> Callable[[Body], bool]:
    return lambda table: (_e0(table).get("stable") or {}).get("version") == name


def _ended(outcome: str) -> Callable[[Body], bool]:
    return lambda table: (_e0(table).get("rollout") or {}).get("outcome") == outcome


async def from_nothing(scene: Scene) -> None:
    await scene.put(*start())
    await scene.operate(True)
    await scene.until(lambda table: table.get("gates"))
    await scene.rest()


async def good(scene: Scene) -> None:
    scene.clients.ask = True
    await scene.put(version("v2"))
    await scene.until(_stable("v2"))
    await scene.rest()


async def bad(scene: Scene) -> None:
    scene.clients.ask, scene.clients.bad = True, "b"
    await scene.put(version("v2"))
    await scene.until(_ended("RolledBack"))
    await scene.rest()


async def good_then_bad(scene: Scene) -> None:
    await good(scene)
    scene.clients.bad = "d"
    await scene.put(version("v3"))
    await scene.until(_ended("RolledBack"))
    await scene.rest()


async def bad_then_good(scene: Scene) -> None:
    await bad(scene)
    await scene.put(version("v3"))
    await scene.until(_stable("v3"))
    await scene.rest()


async def bad_then_bad(scene: Scene) -> None:
    await bad(scene)
    scene.clients.bad = "bd"
    await scene.put(version("v3"))
    await scene.until(_begun("v3"))
    await scene.until(_ended("RolledBack"))
    await scene.rest()


async def set_back_in_the_middle(scene: Scene) -> None:
    await scene.put(version("v2"))
    await scene.until(_seen("v2"))
    await scene.put(version("v1"))
    await scene.until(_ended("Aborted"))
    await scene.rest()


async def aborted_retried_promoted(scene: Scene) -> None:
    await scene.put(version("v2"))
    await scene.until(_seen("v2"))
    await scene.put(override("abort", "tiny-e0", "Abort", revision=2))
    await scene.until(_ended("Aborted"))
    await scene.put(override("retry", "tiny-e0", "Retry", revision=2))
    await scene.until(_seen("v2", revision=3))
    await scene.put(override("promote", "tiny-e0", "Promote", revision=3))
    await scene.until(_stable("v2"))
    await scene.rest()


async def paused_and_resumed(scene: Scene) -> None:
    await scene.put(version("v2"))
    await scene.until(_seen("v2"))
    await scene.put(override("pause", "tiny-e0", "Pause", insteadOf="v2"))
    await scene.until(_ended("Paused"))
    scene.clients.ask = True
    await scene.passes(2)
    await remove(scene, OVERRIDE, "pause")
    await scene.until(_stable("v2"))
    await scene.rest()


async def served_instead_and_lifted(scene: Scene) -> None:
    await good(scene)
    await scene.put(override("back", "tiny-e0", "Serve", version="v1", insteadOf="v2"))
    await scene.until(_stable("v1"))
    await scene.rest()
    await remove(scene, OVERRIDE, "back")
    await scene.until(_stable("v2"))
    await scene.rest()


async def version_and_replicas_at_once(scene: Scene) -> None:
    scene.clients.ask = True
    await scene.put(version("v2", replicas=3))
    await scene.until(_stable("v2"))
    await scene.rest()


async def scaled_in_the_middle(scene: Scene) -> None:
    await scene.put(version("v2"))
    await scene.until(_seen("v2"))
    await scene.rest()
    await scene.put(version("v2", replicas=4))
    await scene.rest()
    scene.clients.ask = True
    await scene.until(_stable("v2"))
    await scene.put(version("v2", replicas=1))
    await scene.rest()


def scaled(name: str) -> Body:
    """Return e0 with one pod or two, by how busy they are."""
    windows = {"stabilizationWindowSeconds": {"up": 0, "down": 0}, "panicWindowSeconds": 5}
    return version(name, autoscaling={"maxReplicas": 2, "targetUtilizationPercent": 60, **windows})


async def rolled_out_while_its_load_falls(scene: Scene) -> None:
    """It has grown with its load; it is not made smaller before the rollout is over."""
    scene.nodes.busy[sha("a")] = 1.0
    await scene.put(scaled("v1"))
    await scene.passes(12)
    scene.nodes.busy.clear()
    await scene.put(scaled("v2"))
    await scene.until(_seen("v2"))
    await scene.passes(16)
    scene.clients.ask = True
    await scene.until(_stable("v2"))
    await scene.passes(16)
    await scene.rest()


async def all_candidate_pods_deleted(scene: Scene) -> None:
    scene.clients.ask = True
    await scene.put(version("v2", rollout={**QUICK, "minRequests": 1_000_000}))
    await scene.until(_seen("v2"))
    await scene.passes(2)
    await lose_pods(scene, "b")
    await scene.until(_ended("RolledBack"))
    await scene.rest()


async def changed_three_times_in_a_second(scene: Scene) -> None:
    await scene.put(version("v2"))
    await scene.until(_begun("v2"))
    await scene.put(version("v3"))
    await scene.until(_begun("v3"))
    await scene.put(version("v1"))
    await scene.until(_ended("Aborted"))
    await scene.rest()


async def expert_made_again(scene: Scene) -> None:
    await remove(scene, EXPERT, "tiny-e0")
    await scene.until(lambda table: not _e0(table).get("stable"))
    await scene.put(version("v1"))
    await scene.until(_stable("v1"))
    await scene.rest()


async def mixture_made_again(scene: Scene) -> None:
    await remove(scene, MIXTURE, "tiny")
    await scene.until(lambda table: not table)
    await scene.rest()
    await scene.put(mixture())
    await scene.until(_stable("v1"))
    await scene.rest()


async def namespace_made_again(scene: Scene) -> None:
    """All that is in it goes, without the say of an object in use, and nothing may come."""
    await scene.end(True)
    await empty(scene)
    await scene.rest()
    await scene.end(False)
    await scene.put(*start())
    await scene.until(_stable("v1"))
    await scene.rest()


async def operator_down_meanwhile(scene: Scene) -> None:
    await scene.put(version("v2"))
    await scene.until(_seen("v2"))
    await scene.operate(False)
    scene.clients.ask = True
    await scene.put(version("v3"))
    await remove(scene, EXPERT, "tiny-e1")
    await scene.put(expert("e1", sha("c")))
    await scene.passes(2)
    await scene.operate(True)
    await scene.until(_stable("v3"))
    await scene.rest()


async def gate_and_experts_changed(scene: Scene) -> None:
    await scene.put(gate("e0", "e1", "e2", version="v2", digest=sha("8")))
    await scene.rest()
    await scene.put(expert("e2", sha("e"), rollout=QUICK))
    await scene.until(
        lambda table: table["gates"] and "e2" in table["gates"][0]["stable"]["experts"]
    )
    await scene.put(gate("e1", version="v3", digest=sha("7")))
    await scene.rest()


def choosy(name: str) -> Body:
    """Return the gate of which each version accepts one of e0 only."""
    digest = sha({"v1": "9", "v2": "8"}[name])
    return gate("e0", "e1", version=name, digest=digest, accepts={"e0": [name]})


async def _only_v1_fits(scene: Scene) -> None:
    scene.clients.ask = True
    await scene.put(choosy("v1"))
    await scene.until(lambda table: "accepts" in table["gates"][0]["stable"])
    await scene.rest()


def _both(name: str) -> Callable[[Body], bool]:
    def check(table: Body) -> bool:
        (one,) = table["gates"]
        return one["stable"]["version"] == name and _stable(name)(table)

    return check


async def version_then_its_gate(scene: Scene) -> None:
    await _only_v1_fits(scene)
    await scene.put(version("v2"))
    await scene.rest()
    await scene.put(choosy("v2"))
    await scene.until(_both("v2"))
    await scene.rest()


async def gate_then_its_version(scene: Scene) -> None:
    await _only_v1_fits(scene)
    await scene.put(choosy("v2"))
    await scene.rest()
    await scene.put(version("v2"))
    await scene.until(_both("v2"))
    await scene.rest()


def layered(layer: int, name: str) -> Body:
    """Return the gate of a layer, of which each version accepts one of e0 only."""
    digest = sha({"v1": "34", "v2": "56"}[name][layer])
    accepts = {"e0": [name]}
    own = f"tiny-gate-{layer}"
    return gate("e0", "e1", version=name, digest=digest, accepts=accepts, name=own, layers=[layer])


async def gates_of_two_layers_with_their_version(scene: Scene) -> None:
    scene.clients.ask = True
    await scene.operate(False)  # else e0 may be idle, and asleep, before a gate names it again
    await remove(scene, GATE, "tiny-gate")
    await scene.put(layered(0, "v1"))
    await scene.operate(True)
    await scene.until(lambda table: [gate["name"] for gate in table["gates"]] == ["tiny-gate-0"])
    await scene.put(layered(1, "v1"))
    await scene.until(lambda table: len(table["gates"]) == 2)
    await scene.rest()
    await scene.put(layered(1, "v2"))
    await scene.rest()
    await scene.put(version("v2"))
    await scene.rest()
    await scene.put(layered(0, "v2"))
    await scene.until(_seen("v2"))
    await scene.until(_stable("v2"))
    await scene.rest()


async def bad_version_with_its_gate(scene: Scene) -> None:
    scene.clients.bad = "b"
    await _only_v1_fits(scene)
    await scene.put(version("v2"))
    await scene.rest()
    await scene.put(choosy("v2"))
    await scene.until(_ended("RolledBack"))
    await scene.rest()


async def gate_and_version_set_back_when_served(scene: Scene) -> None:
    await gate_then_its_version(scene)
    await scene.put(version("v1"))
    await scene.rest()
    await scene.put(choosy("v1"))
    await scene.until(_both("v1"))
    await scene.rest()


async def evaluated(scene: Scene) -> None:
    """The first evaluator fails, the second one finds nothing wrong."""
    scene.nodes.broken_evaluations = 1
    await scene.put(mixture(**golden_set()))
    await scene.until(lambda table: table["trunkSha256"])
    await good(scene)


async def worse_on_the_golden_set(scene: Scene) -> None:
    scene.nodes.losses[sha("b")] = 0.5
    await scene.put(mixture(**golden_set()))
    await scene.until(lambda table: table["trunkSha256"])
    await bad(scene)


SCENARIOS: tuple[Scenario, ...] = (
    good,
    bad,
    good_then_bad,
    bad_then_good,
    bad_then_bad,
    set_back_in_the_middle,
    aborted_retried_promoted,
    paused_and_resumed,
    served_instead_and_lifted,
    version_and_replicas_at_once,
    scaled_in_the_middle,
    rolled_out_while_its_load_falls,
    all_candidate_pods_deleted,
    changed_three_times_in_a_second,
    expert_made_again,
    mixture_made_again,
    namespace_made_again,
    operator_down_meanwhile,
    gate_and_experts_changed,
    version_then_its_gate,
    gate_then_its_version,
    gates_of_two_layers_with_their_version,
    bad_version_with_its_gate,
    gate_and_version_set_back_when_served,
    evaluated,
    worse_on_the_golden_set,
)

# Where pods of several experts come up at once, each that comes later can be one table more, and
# so can a gate that is seen later: so many.
TOGETHER: Mapping[Scenario, int] = {
    from_nothing: 1,
    mixture_made_again: 1,
    namespace_made_again: 2,
}

# Where a person acts while the rollout goes on: who reads that late has taken more steps meanwhile.
MOVING: frozenset[Scenario] = frozenset({changed_three_times_in_a_second})
