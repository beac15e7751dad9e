"""Chooses how the API server is asked: directly where the kubeconfig is plain, else by the library.

A person who rolls back waits for it, and the library's import would be most of that.
"""

from __future__ import annotations

import os
from typing import Final

from kubectl_moe import kubeconfig
from kubectl_moe.cluster import Answer, ApiCluster, ClusterError
from kubectl_moe.direct import Direct


def connect(
    config: str | None, context: str | None, namespace: str | None, timeout_s: float
) -> ApiCluster:
    """Return the cluster that a kubeconfig names, or the one that this runs in.

    Without a namespace it is that of the context. Raises ClusterError where there is none.
    """
    access = kubeconfig.read(config, context, os.environ)
    if access is not None:
        return ApiCluster(
            Direct(access, timeout_s), access.namespace if namespace is None else namespace
        )
    from kubectl_moe import library

    default = library.load(config, context)
    return ApiCluster(library.Library(timeout_s), default if namespace is None else namespace)


class _Nowhere:
    """A `Transport` for verbs that need no cluster."""

    def send(self, method: str, path: str, body: bytes | None) -> Answer:
        raise ClusterError(f"{method} {path} was not to be asked")

    def close(self) -> None:
        """Nothing is open."""


NOWHERE: Final = _Nowhere()
