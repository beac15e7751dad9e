"""Reads and writes objects in the API server for the plugin; the only module here that does."""

from __future__ import annotations

import json
from typing import Any, Protocol

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from kubectl_moe.names import API_VERSION, GROUP, PLURALS, VERSION

Body = dict[str, Any]
Bodies = list[Body]
Query = list[tuple[str, str]]


class ClusterError(Exception):
    """The API server could not be asked, or said no; the message is for a person."""


class NotFound(ClusterError):
    """There is no such object."""


class Cluster(Protocol):
    """What the plugin needs of an API server, in one namespace."""

    namespace: str

    def get(self, kind: str, name: str) -> Body: ...
    def list(self, kind: str, selector: str = "") -> Bodies: ...
    def create(self, body: Body) -> Body: ...
    def delete(self, kind: str, name: str) -> None: ...
    def user(self) -> str: ...


class ApiCluster:
    """A real one, by kubeconfig (or the service account of the pod this runs in)."""

    def __init__(
        self, kubeconfig: str | None, context: str | None, namespace: str | None, timeout_s: float
    ) -> None:
        """Raises ClusterError where the kubeconfig does not lead to a cluster."""
        try:
            config.load_kube_config(kubeconfig, context)  # type: ignore[no-untyped-call]
            contexts, active = config.list_kube_config_contexts(kubeconfig)  # type: ignore[no-untyped-call]
            chosen = next((c for c in contexts if c["name"] == context), active)
            default = chosen["context"].get("namespace", "default")
        except (ConfigException, OSError) as error:
            try:
                config.load_incluster_config()  # type: ignore[no-untyped-call]
            except ConfigException:
                raise ClusterError(f"no cluster to talk to: {error}") from error
            default = "default"
        self.namespace = namespace or default
        self._timeout_s = timeout_s
        self._api = client.ApiClient()

    def get(self, kind: str, name: str) -> Body:
        result: Body = self._call("GET", f"{self._path(kind)}/{name}", what=f"{kind} {name}")
        return result

    def list(self, kind: str, selector: str = "") -> Bodies:
        query = [("labelSelector", selector)] if selector else []
        result = self._call("GET", self._path(kind), what=f"{kind}s", query=query)
        return [{**item, "kind": kind} for item in result["items"]]

    def create(self, body: Body) -> Body:
        what = f"{body['kind']} {body['metadata'].get('name', '')}"
        result: Body = self._call("POST", self._path(body["kind"]), what=what, body=body)
        return result

    def delete(self, kind: str, name: str) -> None:
        self._call("DELETE", f"{self._path(kind)}/{name}", what=f"{kind} {name}")

    def user(self) -> str:
        """Return who the API server takes this caller for."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        review = self._call("POST", path, what="SelfSubjectReview", body=body)
        name: str = review["status"]["userInfo"]["username"]
        return name

    def _path(self, kind: str) -> str:
        if kind in PLURALS:
            return f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{PLURALS[kind]}"
        group = {"Pod": "/api/v1", "Deployment": "/apis/apps/v1"}.get(kind, "/apis/apps/v1")
        return f"{group}/namespaces/{self.namespace}/{kind.lower()}s"

    def _call(
        self,
        method: str,
        path: str,
        *,
        what: str,
        body: Body | None = None,
        query: Query | None = None,
    ) -> Any:
        try:
            response = self._api.call_api(
                *self._api.param_serialize(
                    method,
                    path,
                    query_params=query or [],
                    header_params={
                        "Accept": "application/json",
                        "Content-Type": "application/json",
                    },
                    body=body,
                    auth_settings=["BearerToken"],
                ),
                _request_timeout=self._timeout_s,
            )
            data: bytes = response.read()  # type: ignore[no-untyped-call]
        except ApiException as error:
            raise _explain(error, what, self.namespace) from error
        except HTTPError as error:
            raise ClusterError(f"the API server does not answer: {error}") from error
        if response.status >= 400:
            raise _explain(ApiException(http_resp=response), what, self.namespace)
        return json.loads(data)


def _explain(error: ApiException, what: str, namespace: str) -> ClusterError:
    try:
        message = json.loads(error.body or "{}").get("message", error.reason)
    except (TypeError, ValueError):
        message = error.reason
    if error.status == 404:
        if what.endswith("s"):
            return ClusterError(f"the cluster does not know {API_VERSION}; is moeops installed?")
        return NotFound(f"there is no {what} in namespace {namespace}")
    return ClusterError(f"{what}: {message} ({error.status})")
