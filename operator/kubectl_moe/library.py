"""Asks an API server with the `kubernetes` library: every way to log in, at 0.3 s for its import.

Nothing else imports this module before it is needed.
"""

from __future__ import annotations

import json

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from kubectl_moe.cluster import Answer, ClusterError
from kubectl_moe.direct import APPLY, JSON


def load(kubeconfig: str | None, context: str | None) -> str:
    """Log in by kubeconfig, else by the service account of the pod; return the namespace.

    Raises ClusterError where neither leads to a cluster.
    """
    try:
        config.load_kube_config(kubeconfig, context)  # type: ignore[no-untyped-call]
        contexts, active = config.list_kube_config_contexts(kubeconfig)  # type: ignore[no-untyped-call]
        chosen = next((c for c in contexts if c["name"] == context), active)
        return str(chosen["context"].get("namespace", "default"))
    except (ConfigException, OSError) as error:
        try:
            config.load_incluster_config()  # type: ignore[no-untyped-call]
        except ConfigException:
            raise ClusterError(f"no cluster to talk to: {error}") from error
        return "default"


class Library:
    """A `Transport`, as `load` has logged in."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._api = client.ApiClient()

    def close(self) -> None:
        self._api.rest_client.pool_manager.clear()

    def send(self, method: str, path: str, body: bytes | None) -> Answer:
        try:
            response = self._api.call_api(
                *self._api.param_serialize(
                    method,
                    path,
                    header_params={
                        "Accept": JSON,
                        "Content-Type": APPLY if method == "PATCH" else JSON,
                    },
                    body=None if body is None else json.loads(body),
                    auth_settings=["BearerToken"],
                ),
                _request_timeout=self._timeout_s,
            )
            return Answer(response.status, response.reason, response.read())  # type: ignore[no-untyped-call]
        except ApiException as error:
            return Answer(error.status, error.reason, str(error.body or "").encode())
        except HTTPError as error:
            raise ClusterError(f"the API server does not answer: {error}") from error
