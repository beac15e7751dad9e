"""Who calls: the bearer token of a call, and the digests of those that are valid.

The folder is a mounted Secret with a file for each tenant: a sha256 on each line, of one token
each, so that two are valid while one is exchanged, and who reads the Secret cannot call. Tokens are
in no log and no message.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from moe_router.refusal import Code, Refused

HEADER: Final = "authorization"
_SCHEME: Final = "bearer "
_LARGEST_BYTES: Final = 64 << 10
_HOW: Final = "it must be 'Bearer TOKEN', with a token of a tenant of this mixture"


class BadTokens(ValueError):
    """The folder does not hold what it must; the message names the file, never its content."""


def presented(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the digest of the token that a call came with. Raises Refused, which has no token."""
    found = [value for key, value in metadata if key == HEADER]
    if not found:
        raise Refused(Code.UNAUTHENTICATED, f"there is no metadata {HEADER}; {_HOW}")
    (value, *more) = found
    if more or not isinstance(value, str) or value[: len(_SCHEME)].lower() != _SCHEME:
        raise Refused(Code.UNAUTHENTICATED, f"metadata {HEADER} is not of this form; {_HOW}")
    token = value[len(_SCHEME) :].strip()
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def tenant_of(digest: str, known: Mapping[str, str]) -> str:
    """Return whose token has this digest. Raises Refused.

    All that are known are compared, each in constant time: how long it takes says nothing.
    """
    tenant = ""
    for each, name in known.items():
        if hmac.compare_digest(each, digest):
            tenant = name
    if not tenant:
        raise Refused(Code.UNAUTHENTICATED, f"metadata {HEADER} has a token of no tenant; {_HOW}")
    return tenant


def read_digests(folder: Path, tenants: Sequence[str]) -> dict[str, str]:
    """Return the tenant by digest; one without a file has no token. Raises BadTokens."""
    found: dict[str, str] = {}
    for tenant in tenants:
        for number, line in enumerate(_lines(folder / tenant), 1):
            where = f"{folder / tenant}, line {number}"
            if len(line) != 64 or not set(line) <= set("0123456789abcdef"):
                right = "the sha256 of a token, 64 lower-case hexadecimal digits"
                raise BadTokens(f"{where} is not what it must be: {right}")
            if found.setdefault(line, tenant) != tenant:
                text = f"is of a token that tenant {found[line]} has, too"
                raise BadTokens(f"{where} {text}; each must have its own")
    return found


class Callers:
    """The valid digests; while what is in the folder is wrong, those that were there before.

    Raises BadTokens where there are none to begin with.
    """

    def __init__(self, folder: Path, tenants: Sequence[str], told: Callable[[str], None]) -> None:
        self._folder, self._tenants, self._told = folder, tenants, told
        self._stamp = self._look()
        self._known = read_digests(folder, tenants)

    def refresh(self) -> None:
        """Read the folder where it has changed."""
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._known = read_digests(self._folder, self._tenants)
        except BadTokens as error:
            self._told(str(error))

    def admit(self, metadata: Iterable[tuple[str, str | bytes]]) -> tuple[str, str]:
        """Return tenant and digest of a call. Raises Refused."""
        digest = presented(metadata)
        return tenant_of(digest, self._known), digest

    def check(self, digest: str) -> None:
        """Raise Refused where a token that was valid is not any more."""
        if digest not in self._known:
            text = f"the token of this stream's metadata {HEADER} is not valid any more; {_HOW}"
            raise Refused(Code.UNAUTHENTICATED, text)

    def _look(self) -> tuple[Any, ...]:
        return tuple(_stamp(self._folder / name) for name in self._tenants)


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadTokens(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > _LARGEST_BYTES:
        raise BadTokens(f"{path} is larger than {_LARGEST_BYTES} bytes")
    return [
        line.strip() for line in content.decode("utf-8", "replace").splitlines() if line.strip()
    ]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_ino, seen.st_mtime_ns, seen.st_size
