"""Watches over the pods of sibling experts: a change to one expert must not touch theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from e2e.stage.kube import Body, Kube

WORKERS = "moeops.dev/component=worker"


@dataclass(frozen=True, slots=True)
class Pods:
    """UID and restarts of each worker pod, by name of its Expert object, as of one moment."""

    by_expert: Mapping[str, frozenset[tuple[str, int]]]

    @classmethod
    def of(cls, kube: Kube, mixture: str) -> Pods:
        """Read them now, pods that are going away left out."""
        found: dict[str, set[tuple[str, int]]] = {}
        for pod in kube.list("pods", f"{WORKERS},moeops.dev/mixture={mixture}"):
            if "deletionTimestamp" not in pod["metadata"]:
                expert = pod["metadata"]["labels"]["moeops.dev/expert"]
                found.setdefault(expert, set()).add((pod["metadata"]["uid"], restarts(pod)))
        return cls({expert: frozenset(pods) for expert, pods in found.items()})

    def assert_untouched(self, kube: Kube, mixture: str, *changed: str) -> None:
        """Fail where a pod of another expert than `changed` is gone, new or was restarted."""
        now = Pods.of(kube, mixture)
        for expert in self.by_expert.keys() - set(changed):
            assert now.by_expert.get(expert) == self.by_expert[expert], (
                f"pods of {expert} changed although only {', '.join(changed) or 'nothing'} did"
            )


def restarts(pod: Body) -> int:
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return sum(int(status.get("restartCount", 0)) for status in statuses)
