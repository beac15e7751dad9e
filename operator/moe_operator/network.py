"""Who may reach the pods of a mixture, and the NetworkPolicies that say so.

Made only where the Mixture asks for it. Only what comes in is judged: workers fetch artifacts from
wherever they are. What comes from a pod's own node, as probes of the kubelet do, always may.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from moe_core.document import Reader

Peer = Mapping[str, Any]  # in Kubernetes' own form

_OWN_NAMESPACE: Final[Peer] = {"podSelector": {}}


@dataclass(frozen=True, slots=True)
class Network:
    """Who may ask routers, besides evaluators and the operator, and who may read metrics."""

    clients: tuple[Peer, ...] = (_OWN_NAMESPACE,)
    metrics: tuple[Peer, ...] = ()

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Read it. Raises InvalidDocument."""
        clients = (_OWN_NAMESPACE,)
        if "clients" in reader.value:
            clients = tuple(item.value for item in reader.items("clients"))
        return cls(clients, tuple(item.value for item in reader.items("metrics")))


def of_pods(selected: Mapping[str, str]) -> Peer:
    """Return the pods of the same namespace with these labels."""
    return {"podSelector": {"matchLabels": dict(selected)}}


def of_operator(namespace: str) -> tuple[Peer, ...]:
    """Return the operator's pods; nobody where it runs outside of the cluster."""
    if not namespace:
        return ()
    labels = {"app.kubernetes.io/name": "moeops", "app.kubernetes.io/component": "operator"}
    within = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    return ({"namespaceSelector": within, "podSelector": {"matchLabels": labels}},)


def ingress(doors: Iterable[tuple[int, Iterable[Peer]]]) -> Iterator[dict[str, Any]]:
    """Give the rules that open each port to its peers; without a peer it stays shut."""
    for port, peers in doors:
        allowed = [dict(peer) for peer in peers]
        if allowed:
            yield {"from": allowed, "ports": [{"port": port, "protocol": "TCP"}]}
