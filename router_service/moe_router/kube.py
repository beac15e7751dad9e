"""Follows objects of the API server from a thread: lists, watches, and again after every trouble.

A watch that is cut, silent, too old (410) or refused is begun anew; until it succeeds the last
objects stand. It only reads, and decides nothing.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from moe_core.log import tell

CONNECT_S = 3.0
# The server ends a watch after this time; one that is silent for longer is cut here.
WATCH_S = 10
READ_S = 13.0
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 5.0

Objects = Mapping[str, dict[str, Any]]


class TooOld(Exception):
    """The server no longer has the changes since the resource version asked for."""


class Unreachable(Exception):
    """The API server gave no usable answer."""


class NoCluster(Exception):
    """There is no way to an API server: not in a cluster, or no usable kubeconfig."""


class Api(Protocol):
    """The part of an API server that is needed here. Raises Unreachable or TooOld."""

    def read(self, path: str, query: Mapping[str, str]) -> dict[str, Any]: ...

    def events(self, path: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]: ...


class ApiServer:
    """The API server that a kubeconfig names, or without one that of the cluster this runs in."""

    def __init__(self, kubeconfig: str | None) -> None:
        """Raises NoCluster where there is neither."""
        try:
            if kubeconfig is None:
                config.load_incluster_config()  # type: ignore[no-untyped-call]
            else:
                config.load_kube_config(kubeconfig)  # type: ignore[no-untyped-call]
        except (ConfigException, OSError) as error:
            raise NoCluster(f"no API server to ask: {error}") from error
        settings = client.Configuration.get_default_copy()
        settings.retries = False
        self._client = client.ApiClient(settings)

    def read(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        response = self._open(path, query)
        try:
            body: dict[str, Any] = json.loads(response.data)
        except (HTTPError, ValueError) as error:
            raise Unreachable(f"{path}: {error}") from error
        return body

    def events(self, path: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        response = self._open(path, query)
        rest = b""
        try:
            for piece in response.stream(amt=None, decode_content=False):
                *lines, rest = (rest + piece).split(b"\n")
                yield from (json.loads(line) for line in lines if line)
        except (HTTPError, ValueError) as error:
            raise Unreachable(f"watch of {path}: {error}") from error
        finally:
            response.close()

    def _open(self, path: str, query: Mapping[str, str]) -> Any:
        request = self._client.param_serialize(
            "GET", path, query_params=list(query.items()), auth_settings=["BearerToken"]
        )
        try:
            response = self._client.call_api(*request, _request_timeout=(CONNECT_S, READ_S))
        except (HTTPError, ApiException, OSError) as error:
            raise Unreachable(f"{path}: {error}") from error
        if response.status == 410:
            raise TooOld(path)
        if response.status != 200:
            raise Unreachable(f"{path}: HTTP {response.status} {response.reason}")
        return response.response


class Watch(threading.Thread):
    """Keeps the objects under `path` that `query` selects, by name.

    `changed` is called from this thread with all of them after each change, `confirmed` whenever
    the server has shown that they are still so.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        query: Mapping[str, str],
        changed: Callable[[Objects], None],
        confirmed: Callable[[], None],
    ) -> None:
        super().__init__(name=f"watch {path}", daemon=True)
        self._api, self._path, self._query = api, path, dict(query)
        self._changed, self._confirmed = changed, confirmed
        self._objects: dict[str, dict[str, Any]] = {}
        self._ended = threading.Event()

    def end(self) -> None:
        """Stop calling back; the thread ends with its next answer."""
        self._ended.set()

    def run(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while not self._ended.is_set():
            try:
                version = self._list()
                backoff_s = FIRST_BACKOFF_S
                while not self._ended.is_set():
                    version = self._follow(version)
            except TooOld:
                continue
            except (Unreachable, KeyError, TypeError, AttributeError) as error:
                tell("api_server_unusable", reason=repr(error), again_in_s=backoff_s)
                self._ended.wait(backoff_s)
                backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)

    def _list(self) -> str:
        body = self._api.read(self._path, self._query)
        self._objects = {item["metadata"]["name"]: item for item in body["items"]}
        version = str(body["metadata"]["resourceVersion"])
        self._tell_all()
        return version

    def _follow(self, version: str) -> str:
        """Follow one watch to its end; return the resource version to go on from."""
        query = self._query | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_S),
        }
        for event in self._api.events(self._path, query):
            if self._ended.is_set():
                break
            version = self._take(event)
        self._confirmed()
        return version

    def _take(self, event: dict[str, Any]) -> str:
        kind, body = event.get("type"), event.get("object", {})
        if kind == "ERROR":
            if body.get("code") == 410:
                raise TooOld(self._path)
            raise Unreachable(f"watch of {self._path}: {body.get('message', body)}")
        meta = body["metadata"]
        if kind == "BOOKMARK":
            self._confirmed()
            return str(meta["resourceVersion"])
        if kind == "DELETED":
            self._objects.pop(meta["name"], None)
        else:
            self._objects[meta["name"]] = body
        self._tell_all()
        return str(meta["resourceVersion"])

    def _tell_all(self) -> None:
        if not self._ended.is_set():
            self._changed(dict(self._objects))
            self._confirmed()
