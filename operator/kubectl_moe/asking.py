"""Finds the routers of a mixture, or of all in a namespace, and asks them."""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_moe.cluster import Body, Cluster, ClusterError
from kubectl_moe.gate_loads import Reading
from kubectl_moe.session import Routers
from kubectl_moe.tree import COMPONENT_LABEL, MIXTURE_LABEL


def ask(
    cluster: Cluster,
    routers: Routers,
    mixture: str,
    digests: Sequence[str],
    *,
    grouped: bool = False,
) -> tuple[tuple[Reading, ...], Sequence[str]]:
    """Return what the running routers said, and which said nothing, and why.

    Without a mixture they are those of all mixtures. Raises ClusterError where none answers.
    """
    of = f"{MIXTURE_LABEL}={mixture}" if mixture else MIXTURE_LABEL
    pods = cluster.list("Pod", f"{of},{COMPONENT_LABEL}=router")
    names = [pod["metadata"]["name"] for pod in pods if _runs(pod)]
    if not names:
        where = mixture or f"namespace {cluster.namespace}"
        raise ClusterError(f"no router of {where} is running")
    readings, silent = routers.read(names, digests, grouped=grouped)
    if not readings:
        raise ClusterError(f"no router answers: {'; '.join(silent)}")
    return readings, silent


def _runs(pod: Body) -> bool:
    running = pod.get("status", {}).get("phase") == "Running"
    return running and "deletionTimestamp" not in pod["metadata"]
