"""Chooses how the API server is asked: directly where the kubeconfig is plain, else by the library.

A person who rolls back waits for it, and the library's import would be most of that.
"""

from __future__ import annotations

import os

from kubectl_moe import kubeconfig
from kubectl_moe.cluster import ApiCluster
from kubectl_moe.direct import Direct


def connect(
    config: str | None, context: str | None, namespace: str | None, timeout_s: float
) -> ApiCluster:
    """Return the cluster that a kubeconfig names, or the one that this runs in.

    Raises ClusterError where there is none.
    """
    access = kubeconfig.read(config, context, os.environ)
    if access is not None:
        return ApiCluster(Direct(access, timeout_s), namespace or access.namespace)
    from kubectl_moe import library

    default = library.load(config, context)
    return ApiCluster(library.Library(timeout_s), namespace or default)
