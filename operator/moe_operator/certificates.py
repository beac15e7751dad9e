"""Makes and reads X.509 certificates: an authority, and what it vouches for.

The one place that knows the `cryptography` library. When something is to be made, and what is to
be believed meanwhile, is decided in `authority`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Clocks of nodes differ.
_SKEW: Final = timedelta(minutes=5)


class BadCertificate(ValueError):
    """What was to be a certificate and its key is none; the message says why."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Facts:
    """What is read of a certificate. `key_id` is of its key, `issuer` of that of who vouches."""

    names: tuple[str, ...]
    begins: datetime
    ends: datetime
    key_id: str
    issuer: str


def make_authority(name: str, now: datetime, lifetime: timedelta) -> Pair:
    """Return a new authority of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _builder(subject, key.public_key(), now, now + lifetime)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return _signed(builder, key, key)


def make_leaf(authority: Pair, names: Sequence[str], now: datetime, lifetime: timedelta) -> Pair:
    """Return a certificate with these DNS names, for servers and clients alike.

    It ends no later than its authority. Raises BadCertificate where that is none.
    """
    signer, key = _open(authority), ec.generate_private_key(ec.SECP256R1())
    ends = min(now + lifetime, signer.not_valid_after_utc)
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    issuer = signer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _builder(_subject(names[0]), key.public_key(), now, ends)
        .issuer_name(signer.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False
        )
    )
    return _signed(builder, key, _key(authority))


def facts(certificate: bytes) -> Facts:
    """Read a certificate in PEM. Raises BadCertificate."""
    try:
        seen = x509.load_pem_x509_certificate(certificate)
        extensions = seen.extensions
    except ValueError as error:
        raise BadCertificate(f"not a certificate in PEM: {error}") from None
    names: tuple[str, ...] = ()
    own = issuer = b""
    for extension in extensions:
        match extension.value:
            case x509.SubjectAlternativeName() as value:
                names = tuple(value.get_values_for_type(x509.DNSName))
            case x509.SubjectKeyIdentifier() as value:
                own = value.digest
            case x509.AuthorityKeyIdentifier() as value:
                issuer = value.key_identifier or b""
    begins, ends = seen.not_valid_before_utc, seen.not_valid_after_utc
    return Facts(names, begins, ends, own.hex(), (issuer or own).hex())


def authorizes(certificate: bytes) -> bool:
    """Return whether it may vouch for others. Raises BadCertificate."""
    try:
        extensions = x509.load_pem_x509_certificate(certificate).extensions
    except ValueError as error:
        raise BadCertificate(f"not a certificate in PEM: {error}") from None
    return any(isinstance(e.value, x509.BasicConstraints) and e.value.ca for e in extensions)


def first(chain: bytes) -> bytes:
    """Return the first certificate of a chain in PEM. Raises BadCertificate."""
    return _open(Pair(chain, b"")).public_bytes(Encoding.PEM)


def fits(pair: Pair) -> bool:
    """Return whether the key is that of the certificate."""
    try:
        return _open(pair).public_key() == _key(pair).public_key()
    except BadCertificate:
        return False


def _open(pair: Pair) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pair.certificate)
    except ValueError as error:
        raise BadCertificate(f"not a certificate in PEM: {error}") from None


def _key(pair: Pair) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pair.key, None)
    except (ValueError, TypeError) as error:
        raise BadCertificate(f"not a key in PEM: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadCertificate("not a key of an elliptic curve")
    return key


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _signed(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
) -> Pair:
    certificate = builder.sign(signer, hashes.SHA256())
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Pair(certificate.public_bytes(Encoding.PEM), secret)
