"""Talks to the API server over HTTP: paths, media types, and errors with names.

It retries nothing and caches nothing: the queue decides when to try again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from moe_operator.cluster import ApiError, Conflict, Exists, NotFound, Refused, Unavailable
from moe_operator.kinds import FIELD_MANAGER, Body, Kind, metadata

_JSON: Final = "application/json"
_BRIEF: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
_PAGE: Final = 500
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10.0, sock_connect=3.0)


@dataclass(frozen=True, slots=True)
class ApiServer:
    """A `Writer` and a `Lister` over one HTTP session."""

    session: aiohttp.ClientSession
    server: str

    async def create(self, kind: Kind, body: Body) -> Body:
        path = kind.path(_namespace(body))
        return await self._call("POST", path, body, params={"fieldManager": FIELD_MANAGER})

    async def replace(self, kind: Kind, body: Body) -> Body:
        path = kind.path(_namespace(body), _name(body))
        return await self._call("PUT", path, body, params={"fieldManager": FIELD_MANAGER})

    async def apply(self, kind: Kind, body: Body) -> Body:
        path = kind.path(_namespace(body), _name(body))
        params = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._call("PATCH", path, body, params=params, media=_APPLY)

    async def merge(
        self, kind: Kind, namespace: str, name: str, patch: Mapping[str, Any], subresource: str = ""
    ) -> Body:
        path = kind.path(namespace, name, subresource)
        params = {"fieldManager": FIELD_MANAGER}
        return await self._call("PATCH", path, patch, params=params, media=_MERGE)

    async def delete(self, kind: Kind, body: Body) -> None:
        seen = metadata(body)
        preconditions = {"uid": seen["uid"], "resourceVersion": seen["resourceVersion"]}
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": preconditions,
            "propagationPolicy": "Background",
        }
        await self._call("DELETE", kind.path(_namespace(body), _name(body)), options)

    async def get(self, kind: Kind, namespace: str, name: str) -> Body:
        return await self._call("GET", kind.path(namespace, name))

    async def list_all(
        self, kind: Kind, namespace: str | None, *, brief: bool
    ) -> tuple[list[Body], int]:
        params = {"limit": str(_PAGE)}
        if kind.selector:
            params["labelSelector"] = kind.selector
        found: list[Body] = []
        while True:
            accept = _BRIEF if brief else _JSON
            page = await self._call("GET", kind.path(namespace), params=params, accept=accept)
            found += page["items"] or ()  # of metadata only, an empty list is null
            # In a list the items do without kind and apiVersion.
            token = metadata(page).get("continue")
            if not token:
                version = str(metadata(page).get("resourceVersion", "0"))
                return found, int(version) if version.isdigit() else 0
            params["continue"] = token

    async def _call(
        self,
        method: str,
        path: str,
        payload: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        media: str = _JSON,
        accept: str = _JSON,
    ) -> dict[str, Any]:
        headers = {"Accept": accept, "Content-Type": media}
        try:
            async with self.session.request(
                method,
                self.server + path,
                json=payload,
                params=params,
                headers=headers,
                timeout=_TIMEOUT,
            ) as response:
                answer = await response.json(content_type=None)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise Unavailable(f"{method} {path}: {error!r}") from error
        if response.status >= 400:
            raise refusal(f"{method} {path}", response.status, answer)
        found: dict[str, Any] = answer
        return found


def refusal(what: str, status: int, answer: object) -> ApiError:
    """Return the error that an answer of this HTTP status is."""
    said = answer if isinstance(answer, dict) else {}
    message = f"{what}: {said.get('message') or status}"
    details = said.get("details") or {}
    if status == 404:
        return NotFound(message)
    if status == 409:
        return Exists(message) if said.get("reason") == "AlreadyExists" else Conflict(message)
    if status in (400, 401, 403, 405, 413, 415, 422):
        return Refused(message)
    return Unavailable(message, float(details.get("retryAfterSeconds", 0)))


def _namespace(body: Body) -> str:
    return str(metadata(body)["namespace"])


def _name(body: Body) -> str:
    return str(metadata(body)["name"])
