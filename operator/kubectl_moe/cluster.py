"""Reads and writes objects in the API server for the plugin; how it is asked is its transport's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode

from kubectl_moe.names import API_VERSION, GROUP, PLURALS, VERSION

Body = dict[str, Any]
Bodies = list[Body]


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


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API server said: the status, its reason, and JSON."""

    status: int
    reason: str
    data: bytes


class Transport(Protocol):
    """Carries requests. Raises ClusterError where no answer comes."""

    def send(self, method: str, path: str, body: bytes | None) -> Answer: ...
    def close(self) -> None: ...


class ApiCluster:
    """One namespace of a real API server."""

    def __init__(self, transport: Transport, namespace: str) -> None:
        self.namespace = namespace
        self._transport = transport

    def close(self) -> None:
        self._transport.close()

    def get(self, kind: str, name: str) -> Body:
        result: Body = self._call("GET", f"{self._path(kind)}/{name}", what=f"{kind} {name}")
        return result

    def list(self, kind: str, selector: str = "") -> Bodies:
        query = f"?{urlencode({'labelSelector': selector})}" if selector else ""
        result = self._call("GET", self._path(kind) + query, what=f"{kind}s")
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

    def _call(self, method: str, path: str, *, what: str, body: Body | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        answer = self._transport.send(method, path, data)
        if answer.status >= 400:
            raise _explain(answer, what, self.namespace)
        return json.loads(answer.data)


def _explain(answer: Answer, what: str, namespace: str) -> ClusterError:
    try:
        message = json.loads(answer.data or "{}").get("message", answer.reason)
    except (AttributeError, ValueError):
        message = answer.reason
    if answer.status == 404:
        if what.endswith("s"):
            return ClusterError(f"the cluster does not know {API_VERSION}; is moeops installed?")
        return NotFound(f"there is no {what} in namespace {namespace}")
    return ClusterError(f"{what}: {message} ({answer.status})")
