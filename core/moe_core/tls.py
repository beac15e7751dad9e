"""The certificate of a program: a folder with tls.crt, tls.key and ca.crt, read when it changes.

That is the form of a Secret of the type kubernetes.io/tls with the authority beside it, as the
operator and cert-manager make it. What is on disk counts for connections that begin; those that
are there keep what they began with. It decides nothing about who may speak (see `identity`).
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

CERTIFICATE, KEY, AUTHORITY = "tls.crt", "tls.key", "ca.crt"
_NEWEST_DATA: Final = "..data"  # a link that the kubelet swaps, so that the files change at once
_LARGEST_BYTES: Final = 1 << 20


class BadTls(ValueError):
    """The folder does not hold what it must; the message names the file and what is wrong."""


@dataclass(frozen=True, slots=True)
class Material:
    """What proves who one is, and whom to believe, in PEM. A client may do without the first."""

    certificate: bytes
    key: bytes
    authority: bytes

    @classmethod
    def read(cls, folder: Path, *, anonymous: bool = False) -> Material:
        """Read a folder; `anonymous`: certificate and key may both be missing. Raises BadTls."""
        newest = folder / _NEWEST_DATA
        place = newest.resolve() if newest.exists() else folder
        nobody = anonymous and not any((place / name).exists() for name in (CERTIFICATE, KEY))
        own = (b"", b"") if nobody else (_read(place, CERTIFICATE), _read(place, KEY))
        material = cls(*own, _read(place, AUTHORITY))
        material.check(folder)
        return material

    def check(self, folder: Path) -> None:
        """Raise BadTls where OpenSSL cannot use it."""
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cadata=self.authority.decode("ascii"))
        except (ssl.SSLError, UnicodeDecodeError):
            right = "it must be certificates in PEM"
            raise BadTls(f"{folder / AUTHORITY} holds no authority; {right}") from None
        if not self.certificate:
            return
        try:
            self.load_into(context)
        except ssl.SSLError as error:
            raise BadTls(_wrong(folder, error)) from None

    def load_into(self, context: ssl.SSLContext) -> None:
        with _in_memory(self.certificate + b"\n" + self.key) as path:
            context.load_cert_chain(path, password=lambda: "")


class Folder:
    """The newest material of a folder; while what is there is not whole, what was there before.

    Any thread may ask. Raises BadTls where there is none to begin with.
    """

    def __init__(
        self,
        path: Path,
        told: Callable[[str], None] = lambda reason: None,
        *,
        anonymous: bool = False,
    ) -> None:
        self._path, self._told, self._anonymous = path, told, anonymous
        self._lock = threading.Lock()
        self._stamp = self._look()
        self._material = Material.read(path, anonymous=anonymous)

    def newest(self) -> Material:
        """Return the same object until the folder changes."""
        with self._lock:
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._material = Material.read(self._path, anonymous=self._anonymous)
                except BadTls as error:
                    self._told(str(error))
            return self._material

    def _look(self) -> Any:
        return tuple(_stamp(self._path / name) for name in (CERTIFICATE, KEY, AUTHORITY))


def server_context(material: Material) -> ssl.SSLContext:
    """Return a context that asks for a certificate of the authority, by TLS 1.3 only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # a link is resumed by nobody
    return _filled(context, material)


def client_context(material: Material) -> ssl.SSLContext:
    """Return a context that checks the server's name, by TLS 1.3 only."""
    return _filled(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), material)


def dns_names(certificate: Any) -> tuple[str, ...]:
    """Return the DNS names of a peer's certificate, as `getpeercert` gives it."""
    names = (certificate or {}).get("subjectAltName", ())
    return tuple(str(name) for kind, name in names if kind == "DNS")


def _filled(context: ssl.SSLContext, material: Material) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # An authority may be one that another vouches for; who vouches for that need not be known.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=material.authority.decode("ascii"))
    if material.certificate:
        material.load_into(context)
    return context


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_BYTES)
    except OSError as error:
        text = f"{path} cannot be read: {error.strerror}; the folder must hold"
        raise BadTls(f"{text} {CERTIFICATE}, {KEY} and {AUTHORITY}") from None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_ino, seen.st_mtime_ns, seen.st_size


def _wrong(folder: Path, error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"{folder / KEY} is not the key of {CERTIFICATE}"
    both = f"{folder / CERTIFICATE} or {KEY}"
    return f"{both} cannot be used; they must be PEM, the key without a password"


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """Have the content under a path that is on no disk: OpenSSL reads keys from files only."""
    number = os.memfd_create("tls")
    try:
        os.write(number, content)
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)
