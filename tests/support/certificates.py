"""Folders with certificates, as programs are given them, made by an authority of the test's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from moe_operator.certificates import Pair, make_authority, make_leaf

ROUTER, WORKER, CLIENT = (
    "tiny-router.default.svc",
    "tiny-workers.default.svc",
    "tiny-client.default.svc",
)
OPERATOR = "moeops-operator.moeops-system.svc"


def _now() -> datetime:
    return datetime.now(UTC)


def vouched_for() -> Pair:
    """Return an authority that another vouches for, as an organisation's own CA would."""
    root, own = (make_authority(name, _now(), timedelta(days=1)) for name in ("root", "own"))
    above, seen = (x509.load_pem_x509_certificate(pair.certificate) for pair in (root, own))
    key = load_pem_private_key(root.key, None)
    builder = x509.CertificateBuilder(
        issuer_name=above.subject,
        subject_name=seen.subject,
        public_key=seen.public_key(),
        serial_number=seen.serial_number,
        not_valid_before=seen.not_valid_before_utc,
        not_valid_after=seen.not_valid_after_utc,
        extensions=list(seen.extensions),
    )
    signed = builder.sign(key, SHA256())  # type: ignore[arg-type]  # of an elliptic curve
    return Pair(signed.public_bytes(Encoding.PEM), own.key)


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
