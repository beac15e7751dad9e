"""Puts a table together whose RoutingTable object is only a head: reads the parts that it names.

Parts never change, so that each is read once. It judges nothing but whether a part is the one that
is named: a head that cannot be put together is no table, and what is served stands.
"""

from __future__ import annotations

from moe_core.document import InvalidDocument
from moe_core.parts import Part, named_by, part_name
from moe_router.kube import Api, Unreachable
from moe_router.said import Body, Said


class TableParts:
    """The parts of one mixture's table; remembered are those of the last head."""

    def __init__(self, api: Api, namespace: str, mixture: str) -> None:
        self._api, self._mixture = api, mixture
        self._path = f"/apis/apps/v1/namespaces/{namespace}/controllerrevisions"
        self._known: dict[str, Part] = {}

    def said(self, body: Body) -> Said:
        """Read an object, and the parts that it names, if any.

        Raises Unreachable while a part is not there or is not what it should be: to list and try
        again gives the newest head, whose parts are there.
        """
        spec = body.get("spec")
        if not isinstance(spec, dict) or "parts" not in spec:
            return Said.of(body)
        try:
            named = named_by(spec)
            for sha256 in named:
                if sha256 not in self._known:
                    self._known[sha256] = self._read(sha256)
        except InvalidDocument as error:
            raise Unreachable(f"table {self._mixture}: {error}") from error
        self._known = {sha256: self._known[sha256] for sha256 in named}
        return Said.of(body, self._known.values())

    def _read(self, sha256: str) -> Part:
        name = part_name(self._mixture, sha256)
        part = Part.from_data(self._api.read(f"{self._path}/{name}", {}).get("data"))
        if part.sha256 != sha256:
            raise InvalidDocument(f"{name} is not {sha256}; its content has sha256 {part.sha256}")
        return part
