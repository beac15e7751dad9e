"""Where clients, the operator and health checks reach a router: its gRPC servers and their ports.

With a certificate there is a port more, on which callers prove who they are; and health checks are
answered on one of their own, because the kubelet's know no TLS.
"""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health

from moe_core import identity
from moe_core.grpc_tls import AioCallers, server_credentials
from moe_core.log import tell
from moe_core.tls import BadTls, Folder
from moe_router.callers import BadTokens, Callers
from moe_router.door import Door, TenantsDoor
from moe_router.service import RouterServicer
from moe_router.settings import Settings
from moe_router.tenants import Tenants
from moe_router.trust import Trust
from moeops.v1 import router_pb2_grpc

MAX_MESSAGE_BYTES = 256 << 20

_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),
]


class CannotStart(Exception):
    """An address cannot be listened on, a certificate not be read, or there is no table."""


def certificate(settings: Settings) -> Folder | None:
    """Return the folder that --tls names. Raises CannotStart."""
    if settings.tls is None:
        return None
    try:
        return Folder(settings.tls, lambda reason: tell("certificate_not_read", reason=reason))
    except BadTls as error:
        raise CannotStart(f"--tls: {error}") from None


def trust(settings: Settings, folder: Folder | None) -> Trust | None:
    """Return what links with TLS are made by."""
    if folder is None:
        return None
    return Trust(folder, identity.workers(settings.mixture, settings.namespace))


def door(settings: Settings, tenants: Tenants) -> Door:
    """Return what lets calls in. Raises CannotStart."""
    if not settings.tenants:
        return Door()
    names = [tenant.name for tenant in settings.tenants]
    try:
        callers = Callers(
            settings.tenants_folder, names, lambda reason: tell("tokens_not_read", reason=reason)
        )
    except BadTokens as error:
        raise CannotStart(f"--tenants-folder: {error}") from None
    return TenantsDoor(tenants, callers)


async def listen(
    settings: Settings,
    folder: Folder | None,
    servicer: RouterServicer,
    checks: health.HealthServicer,
) -> list[grpc.aio.Server]:
    """Return the servers, started. Raises CannotStart."""
    callers = {identity.clients(settings.mixture, settings.namespace), settings.operator}
    guards = [] if folder is None else [AioCallers(callers)]
    server = grpc.aio.server(options=_OPTIONS, interceptors=guards)
    router_pb2_grpc.add_RouterServicer_to_server(servicer, server)
    servers = [server]
    port = _port(server, "listen", settings.listen)
    if folder is not None:
        secure = _port(server, "listen-tls", settings.listen_tls, server_credentials(folder))
        tell("listening_tls", address=settings.listen_tls, port=secure)
        servers.append(grpc.aio.server(options=_OPTIONS))
        tell("health", port=_port(servers[-1], "health", settings.health))
    for each in servers:
        health_pb2_grpc.add_HealthServicer_to_server(checks, each)
        await each.start()
    tell("listening", address=settings.listen, port=port)
    return servers


async def listen_inside(servicer: RouterServicer, path: str) -> grpc.aio.Server:
    """Return a server for callers of this process alone, started; `path` is a socket's."""
    server = grpc.aio.server(options=_OPTIONS)
    router_pb2_grpc.add_RouterServicer_to_server(servicer, server)
    _port(server, "listen", f"unix:{path}")
    await server.start()
    return server


def _port(
    server: grpc.aio.Server, flag: str, address: str, secure: grpc.ServerCredentials | None = None
) -> int:
    try:
        if secure is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, secure)
    except RuntimeError as error:
        raise CannotStart(f"--{flag} {address}: {error}") from error
