"""What is observed of one mixture at one moment, frozen, before anything is decided.

Only data: who reads it from the API server and the routers is `observe`, what follows from it is
`verdict` and `plan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from moe_core.parts import Part
from moe_core.rollout import Version
from moe_core.rows import GateRow
from moe_core.table import Table
from moe_operator.drift import History as DriftHistory
from moe_operator.health import History as HealthHistory
from moe_operator.override_spec import OverrideSpec
from moe_operator.router_report import RouterReport
from moe_operator.scaling import History
from moe_operator.spec import ExpertSpec, GateSpec, Meta, MixtureSpec, Tried


@dataclass(frozen=True, slots=True)
class StoredTable:
    """The table as it is in the API server; `resource_version` fences the next write.

    `parts` are the sha256 of those that it is in; none where it is in one piece.
    """

    table: Table
    resource_version: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PartSeen:
    """A ControllerRevision of a Mixture: a part of its table, or of an earlier one."""

    part: Part
    name: str
    uid: str
    resource_version: str


@dataclass(frozen=True, slots=True)
class Revision:
    """A ControllerRevision: a version of an expert as it was accepted, with its pods' template.

    The template is frozen with it, so that a new operator restarts nobody. Of a gate it is the
    variant as the table has it.
    """

    expert: str  # name of the Expert, or of the Gate
    number: int
    version: Version
    template: Mapping[str, object]
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    created: str = ""  # RFC 3339; empty where it is only about to be made
    kind: Tried = Tried.EXPERT


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A ControllerRevision of a Mixture: the stable versions of an epoch that was served.

    `experts` are by the names of their objects.
    """

    epoch: int
    experts: Mapping[str, Version]
    gates: tuple[GateRow, ...]
    name: str = ""
    uid: str = ""
    resource_version: str = ""

    def gate(self, name: str) -> GateRow | None:
        return next((row for row in self.gates if row.name == name), None)


@dataclass(frozen=True, slots=True)
class DeploymentSeen:
    """One Deployment of this mixture: routers', or one expert version's."""

    name: str
    uid: str
    resource_version: str
    component: str  # "worker" or "router"
    expert: str  # name of the Expert object; empty for routers
    digest: str  # first digits of the sha256; empty for routers
    replicas: int
    ready_replicas: int
    unavailable_reason: str  # of its condition, such as a quota; empty where all is well
    stamped_epoch: int  # newest epoch that names it, as stamped
    surge: int = 0  # pods that it has besides `replicas`, in the place of what is about to go


@dataclass(frozen=True, slots=True)
class PolicySeen:
    """A NetworkPolicy that the operator made for this mixture."""

    name: str
    uid: str
    resource_version: str


@dataclass(frozen=True, slots=True)
class PodSeen:
    """One pod of this mixture."""

    name: str
    uid: str
    component: str
    expert: str
    digest: str
    node: str
    address: str
    ready: bool
    deleting: bool
    problem: str  # a sentence: why it is not scheduled, pulled or started; empty where it is
    resource_version: str
    created: datetime
    over: bool  # it has ended, and only its object is still there
    node_selector: Mapping[str, str]
    placed: datetime | None = None  # when a node was found for it
    # Of one that is over: when it ended, whether well, and what its program said at the end.
    ended: datetime | None = None
    succeeded: bool = False
    message: str = ""
    gate: str = ""  # name of the Gate that an evaluator is for
    secure: bool = False  # it is asked by TLS


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """One node of the cluster; `ready_since` is None where it never said."""

    name: str
    ready: bool
    ready_since: datetime | None
    schedulable: bool  # not cordoned, and no taint keeps pods away
    labels: Mapping[str, str]
    cordoned: bool = False  # it is about to be drained
    cordoned_since: datetime | None = None  # as Kubernetes stamps it, a moment later


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a worker that does not serve yet said of an artifact: its phase, and why not."""

    pod: str
    sha256: str
    phase: str  # Fetching, Verifying, Loading, Warming, Serving, Refused
    message: str


@dataclass(frozen=True, slots=True)
class Question:
    """A query, and the address of the Prometheus that answers it."""

    address: str
    query: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The number that a query gave, or a sentence why there is none; and when."""

    at: datetime
    value: float | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Invalid:
    """An object whose spec could not be read, and the sentence that says why."""

    kind: str
    meta: Meta
    sentence: str


@dataclass(frozen=True, slots=True)
class World:
    """All that is known of one mixture. Lists are sorted by name.

    `mixture` is None where no such object exists while others name it.
    """

    namespace: str
    name: str
    mixture: MixtureSpec | None
    table: StoredTable | None
    experts: tuple[ExpertSpec, ...]
    gates: tuple[GateSpec, ...]
    overrides: tuple[OverrideSpec, ...]
    revisions: tuple[Revision, ...]
    deployments: tuple[DeploymentSeen, ...]
    pods: tuple[PodSeen, ...]
    routers: tuple[RouterReport, ...]
    workers: tuple[WorkerReport, ...]
    invalid: tuple[Invalid, ...] = ()
    # In order of their epochs.
    snapshots: tuple[Snapshot, ...] = ()
    # Also those of earlier tables, and of one that was never written.
    parts: tuple[PartSeen, ...] = ()
    # Of the whole cluster; empty where they may not be read.
    nodes: tuple[NodeSeen, ...] = ()
    policies: tuple[PolicySeen, ...] = ()
    # Hash of the manifest applied last, by (kind, name) of every child object that exists.
    applied: Mapping[tuple[str, str], str] = field(default_factory=dict)
    # What the API server said of child objects that it did not take, by (kind, name).
    refused: Mapping[tuple[str, str], str] = field(default_factory=dict)
    # What Prometheus said last.
    answers: Mapping[Question, Answer] = field(default_factory=dict)
    # What the workers of experts bore, by the name of the Expert; of those whose load decides.
    histories: Mapping[str, History] = field(default_factory=dict)
    # How the routing of gates was lately, by the name of the Gate and the sha256 of the version; of
    # those that are watched.
    drifts: Mapping[tuple[str, str], DriftHistory] = field(default_factory=dict)
    # How stable versions of experts that are attended did lately; the same.
    checkups: Mapping[tuple[str, str], HealthHistory] = field(default_factory=dict)
