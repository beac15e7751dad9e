"""The kinds of objects that the operator knows, where the API server has them, and to which
mixture an object of each belongs. It reads no field that decides anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

GROUP: Final = "moeops.dev"
MIXTURE_LABEL: Final = f"{GROUP}/mixture"
FIELD_MANAGER: Final = "moeops-operator"

Body = Mapping[str, Any]  # an object as the API server gives it


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object. Built-in namespaced ones are watched by the mixture's label only."""

    name: str
    group: str  # empty for the core group
    version: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def own(self) -> bool:
        return self.group == GROUP

    @property
    def selector(self) -> str:
        """Label selector of a list or watch; empty for our own kinds, and for the cluster's."""
        return "" if self.own or not self.namespaced else MIXTURE_LABEL

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Return the path at the API server: of all namespaces, of a namespace, or of an object."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root]
        if namespace is not None and self.namespaced:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        return "/".join([*parts, *(part for part in (name, subresource) if part)])


MIXTURE: Final = Kind("Mixture", GROUP, "v1alpha1", "mixtures")
EXPERT: Final = Kind("Expert", GROUP, "v1alpha1", "experts")
GATE: Final = Kind("Gate", GROUP, "v1alpha1", "gates")
OVERRIDE: Final = Kind("Override", GROUP, "v1alpha1", "overrides")
ROUTING_TABLE: Final = Kind("RoutingTable", GROUP, "v1alpha1", "routingtables")
DEPLOYMENT: Final = Kind("Deployment", "apps", "v1", "deployments")
CONTROLLER_REVISION: Final = Kind("ControllerRevision", "apps", "v1", "controllerrevisions")
POD: Final = Kind("Pod", "", "v1", "pods")
NODE: Final = Kind("Node", "", "v1", "nodes", namespaced=False)
SERVICE: Final = Kind("Service", "", "v1", "services")
SERVICE_ACCOUNT: Final = Kind("ServiceAccount", "", "v1", "serviceaccounts")
ROLE: Final = Kind("Role", "rbac.authorization.k8s.io", "v1", "roles")
ROLE_BINDING: Final = Kind("RoleBinding", "rbac.authorization.k8s.io", "v1", "rolebindings")
BUDGET: Final = Kind("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets")
NETWORK_POLICY: Final = Kind("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies")
EVENT: Final = Kind("Event", "", "v1", "events")
LEASE: Final = Kind("Lease", "coordination.k8s.io", "v1", "leases")
SECRET: Final = Kind("Secret", "", "v1", "secrets")

# What is watched and cached; tables first, so that a mixture is never seen without its journal.
WATCHED: Final = (
    ROUTING_TABLE,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    OVERRIDE,
    GATE,
    EXPERT,
    MIXTURE,
    SERVICE,
    SERVICE_ACCOUNT,
    ROLE,
    ROLE_BINDING,
    BUDGET,
    NETWORK_POLICY,
    POD,
    NODE,
)
# An installation for some namespaces may lack the right to read these, and does without.
OPTIONAL: Final = frozenset({NODE})
KINDS: Final[Mapping[str, Kind]] = {kind.name: kind for kind in (*WATCHED, EVENT, LEASE, SECRET)}


def metadata(body: Body) -> Mapping[str, Any]:
    found = body.get("metadata")
    return found if isinstance(found, Mapping) else {}


def labels_of(body: Body) -> Mapping[str, str]:
    return metadata(body).get("labels") or {}


def annotations_of(body: Body) -> Mapping[str, str]:
    return metadata(body).get("annotations") or {}


def spec_of(body: Body) -> Mapping[str, Any]:
    found = body.get("spec")
    return found if isinstance(found, Mapping) else {}


def status_of(body: Body) -> Mapping[str, Any]:
    found = body.get("status")
    return found if isinstance(found, Mapping) else {}


def target_of(body: Body) -> tuple[str, str]:
    """Return kind and name of what an Override decides about; empty where it does not say."""
    reference = spec_of(body).get("targetRef")
    found = reference if isinstance(reference, Mapping) else {}
    return str(found.get("kind", "")), str(found.get("name", ""))


def mixture_of(kind: Kind, body: Body) -> str:
    """Return the name of the mixture that an object belongs to; empty where it names none.

    An Override may name an Expert or a Gate, whose mixture only the cache knows: empty too.
    """
    if kind in (MIXTURE, ROUTING_TABLE):
        return str(metadata(body).get("name", ""))
    if kind == OVERRIDE:
        target_kind, name = target_of(body)
        return name if target_kind == MIXTURE.name else ""
    if kind in (EXPERT, GATE):
        reference = spec_of(body).get("mixtureRef")
        return str(reference.get("name", "")) if isinstance(reference, Mapping) else ""
    return labels_of(body).get(MIXTURE_LABEL, "")
