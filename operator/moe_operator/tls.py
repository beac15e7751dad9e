"""What TLS adds to the pods and Services of a mixture, and to addresses of programs.

A worker's template keeps for ever what is said here when it is rendered; so a pod says by the
names of its ports whether it has TLS.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, Final

from moe_core import identity

FOLDER: Final = "/etc/moeops/tls"
ROUTER_TLS_PORT: Final = 7443
ROUTER_HEALTH_PORT: Final = 7003
WORKER_HEALTH_PORT: Final = 7103
LINK: Final = "link-tls"  # the name of a worker's port for links with TLS
EDGE: Final = "grpc-tls"  # the name of a router's port for callers with TLS
PLAIN_EDGE: Final = "grpc"


class TlsMode(StrEnum):
    """Disabled: none. Permitted: links have it, clients may. Required: clients must, too."""

    DISABLED = "Disabled"
    PERMITTED = "Permitted"
    REQUIRED = "Required"


class Part(StrEnum):
    """Who has a certificate of a mixture."""

    ROUTER = "router"
    WORKERS = "workers"
    CLIENT = "client"


def secret_name(mixture: str, part: Part) -> str:
    return f"{mixture}-{part.value}-tls"


def names(mixture: str, namespace: str, part: Part) -> tuple[str, ...]:
    """Return the DNS names of a part's certificate; the first one says who it is."""
    match part:
        case Part.WORKERS:
            return (identity.workers(mixture, namespace),)
        case Part.CLIENT:
            return (identity.clients(mixture, namespace),)
        case Part.ROUTER:
            own = identity.routers(mixture, namespace)
            host = f"{mixture}-router"
            return (own, host, f"{host}.{namespace}", f"{own}.cluster.local")


def volume(mixture: str, part: Part) -> dict[str, Any]:
    return {"name": "tls", "secret": {"secretName": secret_name(mixture, part)}}


def mount() -> dict[str, Any]:
    return {"name": "tls", "mountPath": FOLDER, "readOnly": True}


def with_folder(spec: Mapping[str, Any], mixture: str, part: Part) -> dict[str, Any]:
    """Return a pod's spec whose one container has the certificate of a part."""
    (container,) = spec["containers"]
    mounted = {**container, "volumeMounts": [*container["volumeMounts"], mount()]}
    volumes = [*spec["volumes"], volume(mixture, part)]
    return {**spec, "volumes": volumes, "containers": [mounted]}


def asked_securely(ports: Collection[str]) -> bool:
    """Return whether a pod with ports of these names is to be asked by TLS.

    Where routers are open to all callers, the operator needs no certificate either.
    """
    return LINK in ports or (EDGE in ports and PLAIN_EDGE not in ports)


def address(name: str, host_port: str) -> str:
    """Return the address of a program whose certificate must have this name."""
    return f"tls:{name}@{host_port}"


def parsed(text: str) -> tuple[str, str]:
    """Return name and `host:port` of an address; the name is empty where it has no TLS."""
    if not text.startswith("tls:"):
        return "", text
    name, _, host_port = text.removeprefix("tls:").partition("@")
    return name, host_port
