"""What people wrote: Mixture, Expert, Gate and Override, read once from their objects.

Reads and nothing else. A field that is not what it must be raises InvalidDocument, which names
the field, its value and what would be right; whether objects fit together is judged in `plan`.
The `status` that an object carried is kept beside its spec, because conditions keep the time of
their last transition; nothing that is served depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, Self

from moe_core.document import Reader
from moe_core.policy import Policy
from moe_core.rollout import Version
from moe_core.rows import GateVariant, Role
from moe_core.table import Failover
from moe_core.tenants import Tenant, read_tenants
from moe_operator.autoscaling import Autoscaling
from moe_operator.drift_spec import DriftSpec
from moe_operator.evaluation import Evaluation
from moe_operator.health_spec import HealthSpec
from moe_operator.network import Network
from moe_operator.pods import PodSettings, RouterSettings
from moe_operator.strategy import Strategy

Body = Mapping[str, Any]


class Numerics(StrEnum):
    """Exact: an answer never depends on what else is computed with it."""

    EXACT = "Exact"
    FAST = "Fast"


class Dtype(StrEnum):
    """What experts compute in."""

    FLOAT32 = "Float32"
    BFLOAT16 = "BFloat16"
    FLOAT16 = "Float16"


class Tried(StrEnum):
    """What has versions that are tried out."""

    EXPERT = "Expert"
    GATE = "Gate"


HISTORY_LIMIT = 10


@dataclass(frozen=True, slots=True)
class Meta:
    """Who an object is; `created` is RFC 3339 and orders objects by age."""

    namespace: str
    name: str
    uid: str
    generation: int
    created: str
    deleting: bool
    status: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_body(cls, body: Body) -> Self:
        reader = Reader(body.get("metadata"), "metadata")
        return cls(
            namespace=reader.text("namespace", default="default"),
            name=reader.text("name"),
            uid=reader.text("uid", default=""),
            generation=reader.integer("generation", default=0),
            created=reader.text("creationTimestamp", default=""),
            deleting=reader.text("deletionTimestamp", default="") != "",
            status=body.get("status") or {},
        )

    @property
    def age_key(self) -> tuple[str, str]:
        """Sorts older objects first; names decide within one second."""
        return (self.created, self.name)


@dataclass(frozen=True, slots=True)
class MixtureSpec:
    """The dimensions of one model's mixture layers, and how its pods run."""

    meta: Meta
    hidden_size: int
    layers: int
    dtype: Dtype
    trunk_sha256: str = ""
    numerics: Numerics = Numerics.EXACT
    workers: PodSettings = field(default_factory=PodSettings)
    routers: RouterSettings = field(default_factory=RouterSettings)
    failover: Failover = field(default_factory=Failover)
    max_concurrent: int = 4  # rollouts of experts under way at once
    trunk_uri: str = ""
    evaluators: PodSettings = field(default_factory=PodSettings)
    evaluation: Evaluation | None = None
    prometheus: str = ""  # address
    history_limit: int = HISTORY_LIMIT
    network: Network | None = None  # who may reach its pods; everybody where there is none
    tenants: tuple[Tenant, ...] = ()  # who may ask its routers; everybody where there are none

    @classmethod
    def from_body(cls, body: Body) -> Self:
        """Read a Mixture object. Raises InvalidDocument."""
        spec = Reader(body.get("spec"), "spec")
        trunk, workers = spec.optional_child("trunk"), spec.optional_child("workers")
        routers, evaluators = spec.optional_child("routers"), spec.optional_child("evaluators")
        rollouts = spec.optional_child("rollouts") or Reader({}, "spec.rollouts")
        prometheus, network = (
            spec.optional_child("prometheus"),
            spec.optional_child("networkPolicy"),
        )
        return cls(
            meta=Meta.from_body(body),
            hidden_size=spec.integer("hiddenSize", low=1),
            layers=spec.integer("layers", low=1),
            dtype=spec.enum("dtype", Dtype),
            trunk_sha256=trunk.sha256("sha256") if trunk and "sha256" in trunk.value else "",
            numerics=spec.enum("numerics", Numerics, default=Numerics.EXACT),
            workers=PodSettings() if workers is None else PodSettings.read(workers),
            routers=RouterSettings() if routers is None else RouterSettings.read(routers),
            failover=_failover(spec.optional_child("failover")),
            max_concurrent=rollouts.integer("maxConcurrent", low=1, high=100, default=4),
            trunk_uri="" if trunk is None else trunk.text("uri", default=""),
            evaluators=PodSettings() if evaluators is None else PodSettings.read(evaluators),
            evaluation=_evaluation(spec),
            prometheus="" if prometheus is None else prometheus.text("address"),
            history_limit=_history_limit(spec),
            network=None if network is None else Network.read(network),
            tenants=read_tenants(spec),
        )


def _evaluation(spec: Reader) -> Evaluation | None:
    reader = spec.optional_child("evaluation")
    return None if reader is None else Evaluation.read(reader)


def _failover(reader: Reader | None) -> Failover:
    """Read what is set of it; the rest is the default."""
    if reader is None:
        return Failover()
    return Failover.read(Reader({**Failover().to_dict(), **reader.value}, reader.path))


@dataclass(frozen=True, slots=True)
class ExpertSpec:
    """One expert as it is wanted: its version, its replicas, and how it changes.

    A gate goes through its rollouts in the same terms, as one of that `kind` (see `trial`).
    """

    meta: Meta
    mixture: str
    expert_id: str
    role: Role
    layers: tuple[int, ...]
    version: Version
    replicas: int = 1
    backup: str = ""
    rollout: Strategy = field(default_factory=Strategy)
    evaluation: Evaluation | None = None  # where there is none, that of the Mixture counts
    history_limit: int = HISTORY_LIMIT
    kind: Tried = Tried.EXPERT
    autoscaling: Autoscaling | None = None  # where there is one, it decides on the replicas
    health: HealthSpec | None = None  # where there is none, its health is not looked at

    @classmethod
    def from_body(cls, body: Body) -> Self:
        """Read an Expert object. Raises InvalidDocument."""
        spec = Reader(body.get("spec"), "spec")
        rollout = spec.optional_child("rollout")
        autoscaling, health = spec.optional_child("autoscaling"), spec.optional_child("health")
        return cls(
            meta=Meta.from_body(body),
            mixture=spec.child("mixtureRef").text("name"),
            expert_id=spec.text("expertId"),
            role=spec.enum("role", Role, default=Role.ROUTED),
            layers=tuple(sorted(spec.integers("layers"))),
            version=_version(spec),
            replicas=spec.integer("replicas", high=1024, default=1),
            backup=spec.text("backupExpertId", default=""),
            rollout=Strategy() if rollout is None else Strategy.read(rollout),
            evaluation=_evaluation(spec),
            history_limit=_history_limit(spec),
            autoscaling=None if autoscaling is None else Autoscaling.read(autoscaling),
            health=None if health is None else HealthSpec.read(health),
        )


@dataclass(frozen=True, slots=True)
class GateSpec:
    """One gate as it is wanted; `layers` empty means all. `experts` are in row order.

    `accepts` names the versions that fit this gate, by expert id; of other experts all do.
    """

    meta: Meta
    mixture: str
    layers: tuple[int, ...]
    version: Version
    experts: tuple[str, ...]
    policy: Policy
    accepts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rollout: Strategy = field(default_factory=partial(Strategy, shadow_percent=5))
    evaluation: Evaluation | None = None  # where there is none, that of the Mixture counts
    history_limit: int = HISTORY_LIMIT
    drift: DriftSpec | None = None  # where there is none, its routing is not looked at

    @classmethod
    def from_body(cls, body: Body) -> Self:
        """Read a Gate object. Raises InvalidDocument."""
        spec = Reader(body.get("spec"), "spec")
        versions = {item.text("id"): item.texts("versions") for item in spec.items("experts")}
        experts = tuple(item.text("id") for item in spec.items("experts"))
        policy = Policy.read(spec.child("policy"))
        policy.check(experts, "spec.policy")
        rollout = spec.optional_child("rollout") or Reader({}, "spec.rollout")
        drift, version = spec.optional_child("drift"), _version(spec)
        return cls(
            meta=Meta.from_body(body),
            mixture=spec.child("mixtureRef").text("name"),
            layers=tuple(sorted(spec.integers("layers"))),
            version=version,
            experts=experts,
            policy=policy,
            accepts={expert_id: names for expert_id, names in versions.items() if names},
            rollout=Strategy.read(rollout, shadow_percent=5),
            evaluation=_evaluation(spec),
            history_limit=_history_limit(spec),
            drift=None if drift is None else DriftSpec.read(drift, version.sha256, experts),
        )

    @property
    def variant(self) -> GateVariant:
        """What the table says of this version."""
        own = self.version
        return GateVariant(
            own.version, own.sha256, own.uri, self.experts, self.policy, self.accepts
        )


def _version(spec: Reader) -> Version:
    artifact = spec.child("artifact")
    return Version(spec.text("version"), artifact.sha256("sha256"), artifact.text("uri"))


def _history_limit(spec: Reader) -> int:
    return spec.integer("revisionHistoryLimit", low=1, high=100, default=HISTORY_LIMIT)
