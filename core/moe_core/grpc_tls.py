"""gRPC with certificates: credentials of servers and clients, and who may call a server.

A server takes each new connection with what is in its folder then. A client's channel keeps what
it was made with, so a new one is made where that has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import grpc

from moe_core.identity import refusal
from moe_core.tls import Folder, Material


def server_credentials(folder: Folder) -> grpc.ServerCredentials:
    """Return credentials that ask every client for a certificate of the folder's authority."""
    used = folder.newest()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used
        newest = folder.newest()
        if newest is used:
            return None
        used = newest
        return _configuration(newest)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(used),
        fetch,  # type: ignore[arg-type]  # None is for what has not changed
        require_client_authentication=True,
    )


def channel_credentials(material: Material) -> grpc.ChannelCredentials:
    own = (material.key, material.certificate) if material.certificate else (None, None)
    return grpc.ssl_channel_credentials(material.authority, *own)


def caller_refused(context: Any, allowed: Collection[str]) -> str:
    """Return why a caller may not call; empty where it may, or where its port has no TLS."""
    seen = context.auth_context()
    if b"ssl" not in seen.get("transport_security_type", ()):
        return ""
    names = seen.get("x509_subject_alternative_name", ())
    return refusal((name.decode(errors="replace") for name in names), allowed)


class Callers(grpc.ServerInterceptor):
    """Lets only these names call a server of threads."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = frozenset(allowed)

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        return handler and _wrapped(handler, self._guard)

    def _guard(self, behaviour: Callable[[Any, Any], Any], streams: bool) -> Any:
        def guarded(request: Any, context: grpc.ServicerContext) -> Any:
            reason = caller_refused(context, self._allowed)
            if reason:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, reason)
            return behaviour(request, context)

        return guarded


class AioCallers(grpc.aio.ServerInterceptor):
    """Lets only these names call a server of an event loop."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = frozenset(allowed)

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        return handler and _wrapped(handler, self._guard)

    def _guard(self, behaviour: Callable[[Any, Any], Any], streams: bool) -> Any:
        async def check(context: Any) -> None:
            reason = caller_refused(context, self._allowed)
            if reason:
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, reason)

        async def one(request: Any, context: Any) -> Any:
            await check(context)
            return await behaviour(request, context)

        async def several(request: Any, context: Any) -> Any:
            await check(context)
            async for answer in behaviour(request, context):
                yield answer

        return several if streams else one


def _wrapped(handler: Any, guard: Callable[[Any, bool], Any]) -> Any:
    """Return the handler of a method with its behaviour guarded, whichever kind it is of."""
    kind = f"{_arity(handler.request_streaming)}_{_arity(handler.response_streaming)}"
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    behaviour = guard(getattr(handler, kind), handler.response_streaming)
    return make(behaviour, handler.request_deserializer, handler.response_serializer)


def _arity(streaming: bool) -> str:
    return "stream" if streaming else "unary"


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    pair = material.key, material.certificate
    return grpc.ssl_server_certificate_configuration([pair], material.authority)
