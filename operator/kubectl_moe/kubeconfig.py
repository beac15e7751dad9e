"""Reads the plain kubeconfigs: one file, one server, client certificates or a token.

Most are. Whatever else one may say (an exec plugin, an auth provider, a proxy, several files, a
mistake) is for the `kubernetes` library, which knows all of it, but takes 0.3 s of processor time
to be imported. So nothing is refused or guessed here: what this module does not know, or cannot
read, is None.
"""

from __future__ import annotations

import os
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

_CLUSTER: Final = {
    "server",
    "certificate-authority",
    "certificate-authority-data",
    "insecure-skip-tls-verify",
    "extensions",
}
_USER: Final = {
    "client-certificate",
    "client-certificate-data",
    "client-key",
    "client-key-data",
    "token",
}
# Reads what libyaml can, several times as fast.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach an API server, and as whom; certificates and keys as PEM."""

    host: str
    port: int
    path: str  # before that of each request; mostly empty
    namespace: str
    authority: bytes | None  # None: the system's
    verified: bool
    certificate: bytes | None
    key: bytes | None
    token: str | None


def read(kubeconfig: str | None, context: str | None, environ: Mapping[str, str]) -> Access | None:
    """Return what a plain kubeconfig says; None where the library is to be asked."""
    text = kubeconfig or environ.get("KUBECONFIG") or "~/.kube/config"
    if os.pathsep in text or any(_names_a_proxy(name) for name in environ):
        return None
    path = Path(text).expanduser()
    try:
        config = yaml.load(path.read_bytes(), _Loader)
        chosen = _named(config["contexts"], context or config["current-context"])["context"]
        cluster = _named(config["clusters"], chosen["cluster"])["cluster"]
        user = _named(config["users"], chosen["user"])["user"] or {}
        return _access(chosen, cluster, user, path.parent)
    except (OSError, yaml.YAMLError, LookupError, TypeError, AttributeError, ValueError):
        return None  # the library says what is wrong


def _access(
    context: Mapping[str, Any], cluster: Mapping[str, Any], user: Mapping[str, Any], folder: Path
) -> Access | None:
    if not (cluster.keys() <= _CLUSTER and user.keys() <= _USER):
        return None
    server = urlsplit(cluster["server"])
    certificate = _pem(user, "client-certificate", folder)
    key = _pem(user, "client-key", folder)
    if server.scheme != "https" or not server.hostname or (certificate is None) != (key is None):
        return None
    return Access(
        server.hostname,
        server.port or 443,
        server.path.rstrip("/"),
        context.get("namespace") or "default",
        _pem(cluster, "certificate-authority", folder),
        not cluster.get("insecure-skip-tls-verify", False),
        certificate,
        key,
        user.get("token") or None,
    )


def _pem(section: Mapping[str, Any], field: str, folder: Path) -> bytes | None:
    """Return what `FIELD-data` holds, else what is in the file that `FIELD` names."""
    if data := section.get(f"{field}-data"):
        return b64decode(data)
    return (folder / section[field]).read_bytes() if section.get(field) else None


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Raises LookupError where there is no such entry."""
    for entry in entries:
        if entry["name"] == name:
            return entry
    raise LookupError(name)


def _names_a_proxy(variable: str) -> bool:
    lower = variable.lower()
    return lower.endswith("_proxy") and lower != "no_proxy"


def contexts(kubeconfig: str | None, environ: Mapping[str, str]) -> list[str]:
    """Return the names of all contexts; of files that cannot be read, none."""
    text = kubeconfig or environ.get("KUBECONFIG") or "~/.kube/config"
    found: dict[str, None] = {}
    for path in text.split(os.pathsep):
        try:
            config = yaml.load(Path(path).expanduser().read_bytes(), _Loader)
            found.update(dict.fromkeys(str(entry["name"]) for entry in config["contexts"]))
        except (OSError, yaml.YAMLError, LookupError, TypeError):
            continue
    return list(found)
