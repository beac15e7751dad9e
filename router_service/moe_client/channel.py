"""How a client connects to a router: one place for addresses and options of gRPC."""

from __future__ import annotations

from typing import Any

import grpc

MAX_MESSAGE_BYTES = 256 << 20

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
    # Each channel connects anew: behind a virtual address that may reach another router.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)


def connect(address: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.aio.Channel:
    """Return a channel to `host:port` or `unix:/path`, encrypted where credentials are given."""
    options = [*_OPTIONS]
    if address.startswith("unix:"):
        options.append(("grpc.default_authority", "localhost"))
    if credentials is not None:
        return grpc.aio.secure_channel(address, credentials, options)
    return grpc.aio.insecure_channel(address, options)
