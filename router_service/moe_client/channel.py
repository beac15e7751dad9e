"""How a client connects to a router: one place for addresses, certificates and options of gRPC."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc

from moe_client.errors import InvalidRequest
from moe_core.grpc_tls import channel_credentials
from moe_core.tls import BadTls, Folder

MAX_MESSAGE_BYTES = 256 << 20

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
    # Each channel connects anew: behind a virtual address that may reach another router.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)


TOKEN = "MOE_TOKEN"
Metadata = tuple[tuple[str, str], ...]


def authorization(token: str | None, environment: Mapping[str, str] = os.environ) -> Metadata:
    """Return what says to routers who calls: by this token, or the one in MOE_TOKEN.

    Raises InvalidRequest, which does not show the token.
    """
    found = environment.get(TOKEN, "") if token is None else token
    if not found:
        return ()
    if not (found.isascii() and found.isprintable()) or " " in found:
        where = TOKEN if token is None else "token"
        raise InvalidRequest(f"{where} must be printable ASCII without spaces")
    return (("authorization", f"Bearer {found}"),)


class Tls:
    """A folder with the routers' authority, ca.crt, and tls.crt and tls.key of this client.

    It is read again when it changes, so that a client outlives its certificate. `name` is the DNS
    name that the routers' certificate must have, where they are not reached by one that it has:
    `tiny-router.default.svc`. A folder without tls.crt and tls.key proves nothing to routers.
    Raises InvalidRequest, naming the file and what is wrong with it.
    """

    def __init__(self, folder: str | Path, name: str = "") -> None:
        self.name = name
        try:
            self._folder = Folder(Path(folder), anonymous=True)
        except BadTls as error:
            raise InvalidRequest(f"tls: {error}") from None

    def credentials(self) -> grpc.ChannelCredentials:
        """Return those of the folder as it is now."""
        return channel_credentials(self._folder.newest())


Credentials = grpc.ChannelCredentials | Tls


def connect(address: str, credentials: Credentials | None = None) -> grpc.aio.Channel:
    """Return a channel to `host:port` or `unix:/path`, encrypted where credentials are given."""
    options = [*_OPTIONS]
    if address.startswith("unix:"):
        options.append(("grpc.default_authority", "localhost"))
    if isinstance(credentials, Tls):
        if credentials.name:
            options.append(("grpc.ssl_target_name_override", credentials.name))
        credentials = credentials.credentials()
    if credentials is not None:
        return grpc.aio.secure_channel(address, credentials, options)
    return grpc.aio.insecure_channel(address, options)
