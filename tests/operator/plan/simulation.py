"""A small cluster without a clock: applies plans write by write, and answers as the real one does.

Pods come up, routers take tables and links, sessions are pinned and counted by the real rules, and
nothing sleeps. The operator's only memory is its evidence, which it loses when it dies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from moe_core.pins import pinned
from moe_core.rollout import Version
from moe_core.rows import ExpertRow, GateRow, GateVariant
from moe_core.table import Table
from moe_operator.evidence import Evidence
from moe_operator.intent import Delete, Manifest, Note, Plan, Status
from moe_operator.override_spec import OverrideSpec
from moe_operator.plan import Settings, plan_mixture
from moe_operator.questions import questions
from moe_operator.router_report import (
    Counters,
    GateLoading,
    LayerShadow,
    Loading,
    Measure,
    OutcomeSum,
    RouterReport,
    Shadow,
)
from moe_operator.sequential import Arm
from moe_operator.spec import ExpertSpec, GateSpec, MixtureSpec
from moe_operator.world import (
    Answer,
    DeploymentSeen,
    NodeSeen,
    PodSeen,
    PolicySeen,
    Question,
    Revision,
    Snapshot,
    StoredTable,
    WorkerReport,
    World,
)
from tests.operator.plan import invariants
from tests.operator.plan.bodies import MIXTURE, NAMESPACE, versioned

SETTINGS = Settings(
    "moeops/worker:1", "moeops/router:1", "moeops/evaluator:1", namespace="moeops-system"
)
BOUNDS_US = (500, 1_000, 2_000, 5_000, 10_000, 50_000)
NO_ROOM = "Unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
START = datetime(2026, 1, 1, 12, tzinfo=UTC)


T = TypeVar("T")


class Died(Exception):
    """The operator was killed between two writes."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a version behaves once it is there."""

    starts: bool = True
    refused: str = ""
    nonfinite: bool = False
    fails: bool = False
    latency_bucket: int = 0
    norm: float = 1.0
    # Next-token loss: of one sequence in 64 of the golden set, and of every session of 100 tokens.
    golden: tuple[float, float] = (0.0, 0.01)  # mean and sd of candidate − stable, stable being 2
    bits: float = 2.0
    # Of a gate: the share of tokens that it sends to the first of its experts, in percent.
    first_percent: int = 50
    lost: float = 0.0  # of a gate: the share of its weight that another function answers


@dataclass(slots=True)
class Deployment:
    manifest: Manifest
    uid: str
    resource_version: int

    @property
    def labels(self) -> Mapping[str, str]:
        labels: Mapping[str, str] = self.manifest.body["metadata"]["labels"]
        return labels

    @property
    def replicas(self) -> int:
        return int(self.manifest.body["spec"]["replicas"])

    @property
    def surge(self) -> int:
        return int(self._annotations.get("moeops.dev/surge", 0))

    @property
    def sha256(self) -> str:
        return str(self._annotations.get("moeops.dev/sha256", ""))

    @property
    def _annotations(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.manifest.body["metadata"].get("annotations", {})
        return found


@dataclass(slots=True)
class Pod:
    name: str
    deployment: str
    node: str
    created: datetime
    age: int = 0
    ready: bool = False
    placed: datetime | None = None


@dataclass(slots=True)
class Evaluator:
    """A pod that tries a candidate; it ends three seconds after it was made."""

    manifest: Manifest
    created: datetime
    ended: datetime | None = None
    message: str = ""
    succeeded: bool = False

    @property
    def environment(self) -> Mapping[str, str]:
        (container,) = self.manifest.body["spec"]["containers"]
        return {v["name"]: v["value"] for v in container["env"] if "value" in v}


@dataclass(slots=True)
class Router:
    """A router pod's own state; `table` is what it serves by."""

    incarnation: str
    table: Table | None = None
    blind: bool = False
    kept: bool = False  # by its own copy, as no API server answers it
    had_table: bool = False
    counters: dict[str, Counters] = field(default_factory=dict)
    outcomes: dict[tuple[str, str, int], Arm] = field(default_factory=dict)
    gate_outcomes: dict[tuple[str, str, int], Arm] = field(default_factory=dict)
    shadows: dict[tuple[str, str], Shadow] = field(default_factory=dict)  # candidate, base


@dataclass(slots=True)
class Simulation:
    """The objects, the pods and the routers of one mixture."""

    bodies: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    traffic: int = 10  # new sessions a second
    lagging: bool = False  # routers do not take new tables
    heard: bool = True  # the operator has asked routers
    blind: bool = False  # routers that come from now on can read none
    away: bool = False  # no operator is there
    reporting: bool = False  # clients say what the answers were worth
    broken_evaluations: int = 0  # so many more evaluators fail
    foreign_result: bool = False  # the next result is about another candidate
    samples: dict[str, float | str] = field(default_factory=dict)  # of Prometheus, by query
    now: datetime = START
    stored: StoredTable | None = None
    revisions: dict[str, Revision] = field(default_factory=dict)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    children: dict[tuple[str, str], str] = field(default_factory=dict)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    budgets: dict[str, Manifest] = field(default_factory=dict)  # by the name of the Deployment
    policies: dict[str, Manifest] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    evaluators: dict[str, Evaluator] = field(default_factory=dict)
    routers: dict[str, Router] = field(default_factory=dict)
    nodes: dict[str, NodeSeen] = field(default_factory=lambda: {"n1": node("n1")})
    quota: str = ""  # why no pods are made any more
    full: set[str] = field(default_factory=set)  # nodes that the scheduler finds no room on
    evidence: Evidence = field(default_factory=Evidence)
    writes: list[str] = field(default_factory=list)
    told: list[Note] = field(default_factory=list)
    die_after: int | None = None  # writes, counted from the beginning
    _read: dict[tuple[str, str], tuple[dict[str, Any], Any]] = field(default_factory=dict)
    _serial: int = 0
    _sessions: int = 0

    # What people do.

    def put(self, kind: str, body: dict[str, Any]) -> None:
        self.bodies[kind, body["metadata"]["name"]] = body

    def change(self, name: str, **spec: Any) -> None:
        """Change fields of an Expert's spec."""
        self._change("Expert", name, spec)

    def change_gate(self, name: str, **spec: Any) -> None:
        """Change fields of a Gate's spec."""
        self._change("Gate", name, spec)

    def _change(self, kind: str, name: str, spec: Mapping[str, Any]) -> None:
        body = self.bodies[kind, name]
        meta = {**body["metadata"], "generation": body["metadata"]["generation"] + 1}
        self.put(kind, {**body, "metadata": meta, "spec": {**body["spec"], **spec}})

    def want(self, name: str, version: str) -> None:
        self.change(name, **versioned(name, version))

    def remove(self, kind: str, name: str) -> None:
        """Delete an object and, as the garbage collector does, what it owns."""
        uid = self.bodies.pop((kind, name))["metadata"]["uid"]
        for found in [d for d, seen in self.deployments.items() if _owner(seen.manifest) == uid]:
            self.drop(found)
        kept_pods = {n: p for n, p in self.evaluators.items() if _owner(p.manifest) != uid}
        self.evaluators = kept_pods
        if kind in ("Expert", "Gate"):
            self.revisions = {
                n: r for n, r in self.revisions.items() if (r.kind.value, r.expert) != (kind, name)
            }

    def wipe_status(self) -> None:
        for kind, name in list(self.bodies):
            body = self.bodies[kind, name]
            self.bodies[kind, name] = {k: v for k, v in body.items() if k != "status"}

    def kill_operator(self) -> None:
        self.evidence = Evidence()

    def kill_pods(self, version: str) -> None:
        """Delete the pods whose Deployment's name ends with the digits of a digest."""
        for pod in [p for p in self.pods.values() if p.deployment.endswith(version[:10])]:
            del self.pods[pod.name]

    def lose_node(self, name: str) -> None:
        """Take a node away, and what runs on it."""
        self.nodes[name] = replace(self.nodes[name], ready=False, ready_since=self.now)
        for pod in [p for p in self.pods.values() if p.node == name]:
            del self.pods[pod.name]

    def find_node(self, name: str) -> None:
        """Let a node come, or come back."""
        self.nodes[name] = node(name, since=self.now)

    # Time.

    def run(self, seconds: int) -> Simulation:
        for _ in range(seconds):
            self.tick()
        return self

    def tick(self) -> None:
        """One second: pods, routers, traffic, then the operator until it has nothing to change."""
        self.now += timedelta(seconds=1)
        self._kubelet()
        self._routers_take_the_table()
        self._serve()
        if not self.away:
            self.operate()

    def operate(self) -> None:
        """Let the operator look until its plan no longer changes the table."""
        for _ in range(10):
            try:
                if self.look().table is None:
                    return
            except Died:
                self.kill_operator()
            self._routers_take_the_table()
        raise AssertionError("the operator changes the table without end")

    def look(self) -> Plan:
        """One pass of the operator, checked and carried out."""
        world = self.world()
        windows = self.evidence.windows(world.table.table, world.routers) if world.table else {}
        plan = plan_mixture(world, windows, SETTINGS, self.now)
        invariants.check(world, plan, self.routers_tables())
        for name, write in self._writes(plan):
            if self.die_after is not None and len(self.writes) >= self.die_after:
                self.die_after = None
                raise Died
            write()
            self.writes.append(name)
        self.told += plan.notes
        return plan

    # What the operator sees.

    def world(self) -> World:
        mixtures = self._specs("Mixture", MixtureSpec.from_body)
        world = World(
            namespace=NAMESPACE,
            name=MIXTURE,
            mixture=mixtures[0] if mixtures else None,
            table=self.stored,
            experts=self._specs("Expert", ExpertSpec.from_body),
            gates=self._specs("Gate", GateSpec.from_body),
            overrides=self._specs("Override", OverrideSpec.from_body),
            revisions=tuple(self.revisions[name] for name in sorted(self.revisions)),
            deployments=tuple(self._deployment_seen(d) for d in sorted(self.deployments)),
            pods=(
                *(self._pod_seen(self.pods[name]) for name in sorted(self.pods)),
                *(self._evaluator_seen(name) for name in sorted(self.evaluators)),
            ),
            routers=tuple(self._report(name) for name in sorted(self.routers) if self.heard),
            workers=tuple(self._worker_reports()),
            snapshots=tuple(sorted(self.snapshots.values(), key=lambda kept: kept.epoch)),
            nodes=tuple(self.nodes[name] for name in sorted(self.nodes)),
            policies=tuple(PolicySeen(name, name, "1") for name in sorted(self.policies)),
            applied=dict(self.children),
        )
        asked = questions(world, self.stored.table if self.stored else None)
        return replace(world, answers={q: self._answer(q) for q in asked})

    def _answer(self, question: Question) -> Answer:
        said = self.samples.get(question.query, "no data")
        return Answer(self.now, None, said) if isinstance(said, str) else Answer(self.now, said)

    def _specs(self, kind: str, read: Callable[[dict[str, Any]], T]) -> tuple[T, ...]:
        """Read the objects of a kind, each once for as long as it stays the same."""
        for key, body in self.bodies.items():
            if key[0] == kind and (key not in self._read or self._read[key][0] is not body):
                self._read[key] = (body, read(body))
        return tuple(self._read[key][1] for key in sorted(self.bodies) if key[0] == kind)

    def _deployment_seen(self, name: str) -> DeploymentSeen:
        seen = self.deployments[name]
        ready = sum(p.ready for p in self.pods.values() if p.deployment == name)
        return DeploymentSeen(
            name=name,
            uid=seen.uid,
            resource_version=str(seen.resource_version),
            component=seen.labels["moeops.dev/component"],
            expert=seen.labels.get("moeops.dev/expert", ""),
            digest=seen.labels.get("moeops.dev/digest", ""),
            replicas=seen.replicas - seen.surge,
            surge=seen.surge,
            ready_replicas=ready,
            unavailable_reason=self.quota if ready < seen.replicas else "",
            stamped_epoch=0,
        )

    def _pod_seen(self, pod: Pod) -> PodSeen:
        labels = self.deployments[pod.deployment].labels
        return PodSeen(
            name=pod.name,
            uid=pod.name,
            component=labels["moeops.dev/component"],
            expert=labels.get("moeops.dev/expert", ""),
            digest=labels.get("moeops.dev/digest", ""),
            node=pod.node,
            address="10.0.0.1",
            ready=pod.ready,
            deleting=False,
            problem="" if pod.node else NO_ROOM,
            resource_version=pod.name,
            created=pod.created,
            over=False,
            node_selector={},
            placed=pod.placed,
        )

    def _evaluator_seen(self, name: str) -> PodSeen:
        seen = self.evaluators[name]
        labels = seen.manifest.body["metadata"]["labels"]
        return PodSeen(
            name=name,
            uid=name,
            component=labels["moeops.dev/component"],
            expert=labels.get("moeops.dev/expert", ""),
            digest=labels["moeops.dev/digest"],
            gate=labels.get("moeops.dev/gate", ""),
            node="n1",
            address="",
            ready=False,
            deleting=False,
            problem="",
            resource_version=name,
            created=seen.created,
            over=seen.ended is not None,
            node_selector={},
            ended=seen.ended,
            succeeded=seen.succeeded,
            message=seen.message,
        )

    def _report(self, name: str) -> RouterReport:
        router = self.routers[name]
        workers: dict[str, tuple[str, ...]] = {}
        for pod in self.pods.values():
            sha256 = self.deployments[pod.deployment].sha256
            if pod.ready and sha256:
                workers[sha256] = (*workers.get(sha256, ()), pod.name)
        return RouterReport(
            pod=name,
            incarnation=router.incarnation,
            at=self.now,
            table_uid=router.table.uid if router.table else "",
            epoch=router.table.epoch if router.table else 0,
            latency_bounds_us=BOUNDS_US,
            workers=workers,
            versions=dict(router.counters),
            outcomes=(
                *(OutcomeSum(*drawn, Measure.LOSS, arm) for drawn, arm in router.outcomes.items()),
                *(
                    OutcomeSum("", sha256, since, Measure.LOSS, arm, name)
                    for (name, sha256, since), arm in router.gate_outcomes.items()
                ),
            ),
            gates=self._loaded(router),
            shadows=tuple(router.shadows.values()),
            had_table=router.had_table,
            kept=router.kept,
        )

    def _loaded(self, router: Router) -> dict[str, GateLoading]:
        """Routers load at once what their table names, if they can."""
        found = {}
        for row in router.table.gates if router.table else ():
            for variant in row.named:
                behaviour = self.behaviours.get(variant.sha256, Behaviour())
                state = Loading.LOADED if behaviour.starts else Loading.FETCHING
                state = Loading.REFUSED if behaviour.refused else state
                found[variant.sha256] = GateLoading(state, behaviour.refused)
        return found

    def _worker_reports(self) -> Iterator[WorkerReport]:
        for pod in self.pods.values():
            sha256 = self.deployments[pod.deployment].sha256
            refused = self.behaviours.get(sha256, Behaviour()).refused
            if refused:
                yield WorkerReport(pod.name, sha256, "Refused", refused)

    def routers_tables(self) -> tuple[Table, ...]:
        return tuple(router.table for router in self.routers.values() if router.table)

    # What the cluster does by itself.

    def _kubelet(self) -> None:
        for name, deployment in sorted(self.deployments.items()):
            own = sorted(p.name for p in self.pods.values() if p.deployment == name)
            for extra in own[deployment.replicas :]:
                del self.pods[extra]
            for _ in range(deployment.replicas - len(own)):
                pod = Pod(f"{name}-{self._next():04d}", name, "", self.now)
                self.pods[pod.name] = pod
        for pod in self.pods.values():
            if not pod.node:
                pod.node = self._schedule(pod.deployment)
                pod.placed = self.now if pod.node else None
            pod.age += bool(pod.node)
            behaviour = self.behaviours.get(self.deployments[pod.deployment].sha256, Behaviour())
            pod.ready = pod.age > 2 and behaviour.starts and not behaviour.refused
        self._evaluate()
        serving = {p.name for p in self.pods.values() if p.deployment.endswith("-router")}
        self.routers = {n: r for n, r in self.routers.items() if n in serving}
        for name in serving - self.routers.keys():
            self.routers[name] = Router(incarnation=name, blind=self.blind)
        for name, router in self.routers.items():
            self.pods[name].ready &= not router.blind

    def _evaluate(self) -> None:
        for name, pod in self.evaluators.items():
            if pod.ended is not None or self.now - pod.created < timedelta(seconds=3):
                continue
            pod.ended, pod.succeeded = self.now, not self.broken_evaluations
            if self.broken_evaluations:
                self.broken_evaluations -= 1
                pod.message = '{"error": "no router answers"}'
            else:
                pod.message = json.dumps(self._result(pod))
            assert pod.manifest.body["metadata"]["name"] == name

    def _result(self, pod: Evaluator) -> dict[str, Any]:
        environment = pod.environment
        candidate = environment["MOE_EVAL_CANDIDATE"]
        beside = environment.get("MOE_EVAL_BESIDE", "")
        mean, sd = self.behaviours.get(candidate, Behaviour()).golden
        sample = {"n": 64, "mean": mean, "sd": sd, "stable": 2.0, "candidate": 2.0 + mean}
        said = {
            "golden": environment["MOE_EVAL_GOLDEN_SHA256"],
            **{
                kind: environment[f"MOE_EVAL_{kind.upper()}"]
                for kind in ("expert", "gate")
                if f"MOE_EVAL_{kind.upper()}" in environment
            },
            **({"beside": hashlib.sha256(beside.encode()).hexdigest()} if beside else {}),
            "stable": environment["MOE_EVAL_STABLE"],
            "candidate": "f" * 64 if self.foreign_result else candidate,
            "all": sample,
            "slices": {"code": sample},
            "flippedPercent": 1.3,
        }
        self.foreign_result = False
        return said

    def _schedule(self, deployment: str) -> str:
        """Return the node with the fewest pods of this Deployment, as anti-affinity prefers.

        Empty where no node has room.
        """
        open_ = [n.name for n in self.nodes.values() if n.ready and n.schedulable]
        held = [p.node for p in self.pods.values() if p.deployment == deployment]
        return min(sorted(set(open_) - self.full), key=held.count, default="")

    def _routers_take_the_table(self) -> None:
        if self.lagging:
            return
        for router in self.routers.values():
            router.had_table |= router.table is not None
            if router.kept or _ahead(router.table, self.stored):
                continue
            router.table = self.stored.table if self.stored and not router.blind else None

    def _serve(self) -> None:
        """New sessions come to each router; each sends one row to every expert of every gate."""
        for name, router in self.routers.items():
            if router.table is None or not self.pods[name].ready:
                continue
            for _ in range(self.traffic):
                self._session(router, router.table, f"session-{self._next_session()}")

    def _session(self, router: Router, table: Table, session: str) -> None:
        variants = [pinned(row, session, table.epoch) for row in table.gates]
        for row, variant in zip(table.gates, variants, strict=True):
            self._choose(router, row, variant, table.epoch)
        for expert_id in {e for variant in variants for e in variant.experts}:
            expert = table.expert(expert_id)
            version = None if expert is None else pinned(expert, session, table.epoch)
            if version is not None:
                counted = router.counters.get(version.sha256, Counters())
                router.counters[version.sha256] = self._counted(counted, version.sha256)
                assert expert is not None
                self._tell_outcome(router, expert, version, table.epoch)
                self._shadow(router, expert, version)

    def _choose(self, router: Router, row: GateRow, variant: GateVariant, epoch: int) -> None:
        """Count a session's request for its gate, and let the candidate score a row beside it."""
        behaviour = self.behaviours.get(variant.sha256, Behaviour())
        known = router.counters.get(variant.sha256, Counters())
        counts = list(known.latency_counts or (0,) * (len(BOUNDS_US) + 1))
        counts[behaviour.latency_bucket] += 1
        router.counters[variant.sha256] = replace(
            known,
            requests=known.requests + 1,
            rows=known.rows + 1,
            errors=known.errors + behaviour.fails,
            latency_counts=tuple(counts),
            overflow_sessions=known.overflow_sessions + 1,
            mass=known.mass + 1,
            lost_mass=known.lost_mass + behaviour.lost,
        )
        self._tell_outcome(router, row, variant, epoch)
        share = row.rollout.shadow_percent if row.rollout else 0
        if row.candidate is not None and variant == row.stable and share:
            self._score(router, row, row.candidate)

    def _score(self, router: Router, row: GateRow, candidate: GateVariant) -> None:
        """Let 20 rows of each layer be scored in the shadow."""
        key = candidate.sha256, row.stable.sha256
        known = router.shadows.get(key)
        layers = []
        for number, layer in enumerate(row.layers):
            rows = 20 + (known.layers[number].rows if known else 0)
            layers.append(
                LayerShadow(
                    layer=layer,
                    rows=rows,
                    overlap=0.5 * rows,
                    divergence=0.2 * rows,
                    entropy=float(rows),
                    base_entropy=float(rows),
                    pairs=self._pairs(candidate, rows),
                    base_pairs=self._pairs(row.stable, rows),
                )
            )
        router.shadows[key] = Shadow(*key, tuple(layers))

    def _pairs(self, variant: GateVariant, rows: int) -> tuple[int, ...]:
        first = self.behaviours.get(variant.sha256, Behaviour()).first_percent * rows // 100
        others = len(variant.experts) - 1
        return (first, *((rows - first) // others for _ in range(others)))

    def _tell_outcome(
        self, router: Router, row: ExpertRow | GateRow, version: Version, epoch: int
    ) -> None:
        """Let a session of 100 tokens, drawn at random, say what its answers were worth."""
        rollout = row.rollout
        if not self.reporting or rollout is None or not 0 < rollout.weight < 100:
            return
        since = max(weight.epoch for weight in rollout.weights if weight.epoch <= epoch)
        behaviour = self.behaviours.get(version.sha256, Behaviour())
        tokens, bits = 100.0, 100 * (behaviour.bits + 0.01 * (self._sessions % 5 - 2))
        arm = Arm(1, tokens, bits, tokens**2, bits**2, tokens * bits)
        if isinstance(row, GateRow):
            sums, name = router.gate_outcomes, row.name
        else:
            sums, name = router.outcomes, row.expert_id
        drawn = name, version.sha256, since
        sums[drawn] = sums.get(drawn, Arm()) + arm

    def _shadow(self, router: Router, row: ExpertRow, version: Version) -> None:
        """Give the candidate a copy of some of what stable answers."""
        share = row.rollout.shadow_percent if row.rollout else 0
        if row.candidate is None or version != row.stable or self._sessions % 100 >= share:
            return
        sha256 = row.candidate.sha256
        known, behaviour = router.counters.get(sha256, Counters()), self.behaviours.get(sha256)
        bad = behaviour is not None and behaviour.nonfinite
        router.counters[sha256] = replace(
            known,
            shadow_requests=known.shadow_requests + 1,
            shadow_rows=known.shadow_rows + 1,
            shadow_errors=known.shadow_errors + bad,
            shadow_nonfinite_rows=known.shadow_nonfinite_rows + bad,
            shadow_norm_sum=known.shadow_norm_sum + 1.0,
        )

    def _counted(self, counters: Counters, sha256: str) -> Counters:
        behaviour = self.behaviours.get(sha256, Behaviour())
        if behaviour.fails or not self._serving(sha256):
            return replace(counters, requests=counters.requests + 1, errors=counters.errors + 1)
        counts = list(counters.latency_counts or (0,) * (len(BOUNDS_US) + 1))
        counts[behaviour.latency_bucket] += 1
        return replace(
            counters,
            requests=counters.requests + 1,
            rows=counters.rows + 1,
            errors=counters.errors + behaviour.nonfinite,
            nonfinite_rows=counters.nonfinite_rows + behaviour.nonfinite,
            norm_sum=counters.norm_sum + behaviour.norm,
            latency_counts=tuple(counts),
        )

    def _serving(self, sha256: str) -> bool:
        pods = self.pods.values()
        return any(p.ready and self.deployments[p.deployment].sha256 == sha256 for p in pods)

    # Writes, in the order in which the engine does them.

    def _writes(self, plan: Plan) -> Iterator[tuple[str, Callable[[], None]]]:
        for revision in plan.revisions:
            yield f"revision {revision.name}", partial(self._create_revision, revision)
        for snapshot in plan.snapshots:
            yield f"revision {snapshot.name}", partial(self._keep, snapshot)
        for lock in plan.locks:
            yield f"lock {lock.name}", partial(self._merge_status, lock)
        if plan.table is not None:
            yield "table", partial(self._write_table, plan.table)
        for manifest in plan.manifests:
            kind, name = manifest.body["kind"], manifest.body["metadata"]["name"]
            yield f"apply {kind} {name}", partial(self._apply, manifest)
        for deletion in plan.deletes:
            yield f"delete {deletion.name}", partial(self._delete, deletion)
        for status in plan.statuses:
            yield f"status {status.kind} {status.name}", partial(self._set_status, status)
        for pod in plan.pods:
            yield f"create {pod.body['metadata']['name']}", partial(self._create_pod, pod)

    def _create_revision(self, revision: Revision) -> None:
        assert revision.name not in self.revisions, f"{revision.name} exists"
        created = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        self.revisions[revision.name] = replace(revision, uid=revision.name, created=created)

    def _create_pod(self, manifest: Manifest) -> None:
        name = manifest.body["metadata"]["name"]
        assert name not in self.evaluators, f"{name} exists"
        self.evaluators[name] = Evaluator(manifest, self.now)

    def _keep(self, snapshot: Snapshot) -> None:
        assert snapshot.name not in self.snapshots, f"{snapshot.name} exists"
        self.snapshots[snapshot.name] = replace(snapshot, uid=snapshot.name)

    def _merge_status(self, status: Status) -> None:
        before = self.bodies[status.kind, status.name].get("status", {})
        self._set_status(replace(status, status={**before, **status.status}))

    def _set_status(self, status: Status) -> None:
        key = status.kind, status.name
        self.bodies[key] = {**self.bodies[key], "status": dict(status.status)}

    def _write_table(self, table: Table) -> None:
        uid = self.stored.table.uid if self.stored else f"table-{self._next()}"
        body = {"metadata": {"uid": uid}, "spec": table.to_spec()}
        self.stored = StoredTable(Table.from_object(body), str(self._next()))

    def _apply(self, manifest: Manifest) -> None:
        kind, name = manifest.body["kind"], manifest.body["metadata"]["name"]
        self.children[kind, name] = manifest.hash
        if kind == "PodDisruptionBudget":
            self.budgets[name] = manifest
        if kind == "NetworkPolicy":
            self.policies[name] = manifest
        if kind == "Deployment":
            known = self.deployments.get(name)
            uid = known.uid if known else f"uid-{self._next()}"
            self.deployments[name] = Deployment(manifest, uid, self._next())

    def _delete(self, deletion: Delete) -> None:
        if deletion.kind == "RoutingTable":
            assert self.stored is not None
            assert self.stored.table.uid == deletion.uid
            self.stored = None
        elif deletion.kind == "ControllerRevision":
            kept = self.snapshots if deletion.name in self.snapshots else self.revisions
            seen: Revision | Snapshot = kept[deletion.name]
            assert (seen.uid, seen.resource_version) == (deletion.uid, deletion.resource_version)
            del kept[deletion.name]
        elif deletion.kind == "NetworkPolicy":
            del self.policies[deletion.name]
            del self.children["NetworkPolicy", deletion.name]
        elif deletion.name in self.evaluators:
            del self.evaluators[deletion.name]
        elif deletion.kind == "Pod":
            assert self.pods[deletion.name].name == deletion.uid
            del self.pods[deletion.name]
        else:
            assert self.deployments[deletion.name].uid == deletion.uid
            self.drop(deletion.name)

    def drop(self, name: str) -> None:
        del self.deployments[name]
        self.children.pop(("Deployment", name), None)
        self.children.pop(("PodDisruptionBudget", name), None)
        self.budgets.pop(name, None)
        self.pods = {n: p for n, p in self.pods.items() if p.deployment != name}
        self.routers = {n: r for n, r in self.routers.items() if n in self.pods}

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    def _next_session(self) -> int:
        self._sessions += 1
        return self._sessions


def node(name: str, since: datetime = START) -> NodeSeen:
    """Return a node that takes pods, ready since then."""
    return NodeSeen(name, True, since, True, {"kubernetes.io/hostname": name})


def _ahead(served: Table | None, stored: StoredTable | None) -> bool:
    """Return whether a router serves by a later epoch of the same table."""
    if served is None or stored is None or served.uid != stored.table.uid:
        return False
    return served.epoch > stored.table.epoch


def _owner(manifest: Manifest) -> str:
    return str(manifest.body["metadata"]["ownerReferences"][0]["uid"])
