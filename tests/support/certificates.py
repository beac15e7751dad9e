"""Folders with certificates, as programs are given them, made by an authority of the test's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from moe_operator.certificates import Pair, make_authority, make_leaf

ROUTER, WORKER, CLIENT = (
    "tiny-router.default.svc",
    "tiny-workers.default.svc",
    "tiny-client.default.svc",
)
OPERATOR = "moeops-operator.moeops-system.svc"


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Authority:
    """Vouches for names."""

    pair: Pair = field(default_factory=lambda: make_authority("test", _now(), timedelta(days=1)))

    def leaf(self, *names: str, days: float = 1.0) -> Pair:
        """Return a certificate; with `days` below zero one that has expired."""
        ago = timedelta(days=2) if days < 0 else timedelta()
        return make_leaf(self.pair, names, _now() - ago, timedelta(days=abs(days)))

    def folder(self, path: Path, *names: str, days: float = 1.0, believes: bytes = b"") -> Path:
        """Write a certificate with these names; it believes this authority and `believes`."""
        path.mkdir(exist_ok=True)
        write(path, self.leaf(*names, days=days), self.pair.certificate + believes)
        return path


def write(path: Path, pair: Pair, authority: bytes) -> None:
    """Put files in the place of what is there."""
    for name, content in (
        ("tls.crt", pair.certificate),
        ("tls.key", pair.key),
        ("ca.crt", authority),
    ):
        (path / f".{name}").write_bytes(content)
        (path / f".{name}").replace(path / name)
