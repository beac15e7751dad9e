"""Where to listen: `host:port`, or `unix:/path` for programs on one host."""

from __future__ import annotations

from dataclasses import dataclass

_MAX_PATH = 100  # Linux allows 107 bytes in a socket's path


class BadAddress(ValueError):
    """Not an address; the message says what would be one."""


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP host and port (0: any free one), or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address; IPv6 hosts stand in brackets. Raises BadAddress."""
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            if not path.startswith("/") or len(path.encode()) > _MAX_PATH:
                raise BadAddress(
                    f"{text!r}: it must be unix:/path, absolute, at most {_MAX_PATH} bytes long"
                )
            return cls(path=path)
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            colon = ""
        if not (colon and host and port.isascii() and port.isdigit() and int(port) <= 65535):
            raise BadAddress(f"{text!r}: it must be host:port or unix:/path")
        return cls(host, int(port))

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
