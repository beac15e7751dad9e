"""The seam to the API server: what the operator asks of it, and how it may refuse.

Every write answers with the object as stored, which belongs into the cache before the next
decision is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from moe_operator.kinds import Body, Kind


class ApiError(Exception):
    """The API server did not do what it was asked; the message is its own sentence."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotFound(ApiError):
    """There is no such object, or no such kind."""


class Exists(ApiError):
    """An object of that name is there already."""


class Conflict(ApiError):
    """The object is not the one that was seen: look again before deciding again."""


class Refused(ApiError):
    """The request is not allowed or not valid: the same again would be refused again."""


class Unavailable(ApiError):
    """The API server is not there, overloaded or failing: try again later."""


class Writer(Protocol):
    """Changes objects of the API server."""

    async def create(self, kind: Kind, body: Body) -> Body:
        """Create an object. Raises Exists."""
        ...

    async def replace(self, kind: Kind, body: Body) -> Body:
        """Replace an object of the resourceVersion that the body carries. Raises Conflict."""
        ...

    async def apply(self, kind: Kind, body: Body) -> Body:
        """Create or change by server-side apply; a resourceVersion in the body must still hold."""
        ...

    async def merge(
        self, kind: Kind, namespace: str, name: str, patch: Mapping[str, Any], subresource: str = ""
    ) -> Body:
        """Change an object, or its status, by a merge patch."""
        ...

    async def delete(self, kind: Kind, body: Body) -> None:
        """Delete an object as seen: its uid and resourceVersion must still hold."""
        ...


class Lister(Protocol):
    """Reads objects of the API server."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Body:
        """Return an object. Raises NotFound."""
        ...

    async def list_all(
        self, kind: Kind, namespace: str | None, *, brief: bool
    ) -> tuple[list[Body], int]:
        """Return all objects of a kind and the list's resourceVersion.

        Brief ones have metadata only. `namespace` None is all of them.
        """
        ...
