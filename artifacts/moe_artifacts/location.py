"""Where an artifact is: a file of a mounted volume, or an address to download it from. Pure."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from moe_artifacts.errors import Refused

_RIGHT = "it must be file:///path, http://host/path or https://host/path"


def parse_uri(uri: str) -> Path | str:
    """Return the path of a file:// uri, or an http(s) address as it is. Raises Refused."""
    if not uri.isascii() or not uri.isprintable() or " " in uri:
        raise Refused(f"uri is {uri!r:.80}; it must be printable ASCII, all else written as %XX")
    try:
        parts = urlsplit(uri)
        host = parts.hostname
        _ = parts.port
    except ValueError as error:
        raise Refused(f"uri is {uri!r:.80} ({error}); {_RIGHT}") from None
    if parts.fragment:
        raise Refused(f"uri is {uri!r:.80}; it must have no # in it")
    if parts.scheme == "file":
        path = unquote(parts.path)
        if host not in (None, "localhost") or parts.query or len(path) < 2 or "\0" in path:
            raise Refused(f"uri is {uri!r:.80}; a file's uri is file:///path, without host or ?")
        return Path(path)
    if parts.scheme not in ("http", "https") or not host:
        raise Refused(f"uri is {uri!r:.80}; {_RIGHT}")
    if parts.username is not None or parts.password is not None:
        raise Refused("uri holds a user or password, which everyone could read; leave them out")
    return uri
