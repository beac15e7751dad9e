"""Asks an API server over one connection of the standard library, which is there in 0.03 s."""

from __future__ import annotations

import http.client
import ssl
import tempfile
from pathlib import Path
from typing import Final

from kubectl_moe.cluster import Answer, ClusterError
from kubectl_moe.kubeconfig import Access

JSON: Final = "application/json"
APPLY: Final = "application/apply-patch+yaml"  # of which JSON is a part


class Direct:
    """A `Transport`. The connection is kept, and made anew where the server has closed it."""

    def __init__(self, access: Access, timeout_s: float) -> None:
        """Raises ClusterError where certificates or key cannot be used."""
        self._path = access.path
        self._headers = {"Accept": JSON, "User-Agent": "kubectl-moe"}
        if access.token:
            self._headers["Authorization"] = f"Bearer {access.token}"
        self._connection = http.client.HTTPSConnection(
            access.host, access.port, timeout=timeout_s, context=_tls(access)
        )

    def send(self, method: str, path: str, body: bytes | None) -> Answer:
        try:
            return self._send(method, path, body)
        except (ConnectionError, http.client.HTTPException) as error:
            if method != "GET":  # it may have been done
                raise _no_answer(error) from error
        except OSError as error:
            raise _no_answer(error) from error
        try:
            return self._send(method, path, body)
        except (OSError, http.client.HTTPException) as error:
            raise _no_answer(error) from error

    def close(self) -> None:
        self._connection.close()

    def _send(self, method: str, path: str, body: bytes | None) -> Answer:
        try:
            headers = {**self._headers, "Content-Type": APPLY if method == "PATCH" else JSON}
            self._connection.request(method, self._path + path, body, headers)
            response = self._connection.getresponse()
            return Answer(response.status, response.reason, response.read())
        except BaseException:
            self._connection.close()
            raise


def _tls(access: Access) -> ssl.SSLContext:
    try:
        authority = access.authority.decode() if access.authority else None
        context = ssl.create_default_context(cadata=authority)
        # As kubectl: any certificate of the authority's file is trusted, also an old one without
        # the extensions that newer Pythons ask for.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not access.verified:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if access.certificate and access.key:
            # Only files are taken; this one is the owner's alone, and gone at once.
            with tempfile.TemporaryDirectory() as folder:
                pair = Path(folder, "pair.pem")
                pair.write_bytes(access.certificate + b"\n" + access.key)
                context.load_cert_chain(pair)
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise ClusterError(f"the certificates of the kubeconfig cannot be used: {error}") from error
    return context


def _no_answer(error: Exception) -> ClusterError:
    return ClusterError(f"the API server does not answer: {error}")
