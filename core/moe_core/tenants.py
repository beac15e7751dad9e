"""The tenants of a mixture: who may ask its routers, with which share and how much. Pure.

Read from the Mixture by the operator, and by the router from what the operator passes on. Which
tokens a tenant has is in no spec (see `moe_router.callers`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from moe_core.document import InvalidDocument, Reader

MAX_TENANTS: Final = 64
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_MOST_ROWS: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant; 0 is no limit. Limits are those of one router."""

    name: str
    weight: int = 1
    rows_per_second: int = 0
    burst_rows: int = 0  # what the bucket holds; one second's rows where it is not said
    rows_in_flight: int = 0

    @property
    def burst(self) -> int:
        return self.burst_rows or self.rows_per_second

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Read one of `spec.tenants`. Raises InvalidDocument."""
        name = reader.text("name")
        if not _NAME.fullmatch(name):
            right = "lower-case letters, digits and '-', at most 63, such as team-a"
            raise InvalidDocument(f"{reader.path}.name is {name[:80]!r}; it must be {right}")
        tenant = cls(
            name,
            reader.integer("weight", low=1, high=1000, default=1),
            _limit(reader, "rowsPerSecond"),
            _limit(reader, "burstRows"),
            _limit(reader, "rowsInFlight"),
        )
        if tenant.burst_rows and not tenant.rows_per_second:
            text = f"{reader.path}.burstRows is {tenant.burst_rows} without rowsPerSecond"
            raise InvalidDocument(f"{text}; it must be left out, or rowsPerSecond be given")
        return tenant

    def to_dict(self) -> dict[str, Any]:
        """Return what `read` reads."""
        limits = {
            "rowsPerSecond": self.rows_per_second,
            "burstRows": self.burst_rows,
            "rowsInFlight": self.rows_in_flight,
        }
        given = {name: value for name, value in limits.items() if value}
        return {"name": self.name, "weight": self.weight, **given}


def _limit(reader: Reader, name: str) -> int:
    low = 1 if name in reader.value else 0
    return reader.integer(name, low=low, high=_MOST_ROWS, default=0)


def read_tenants(reader: Reader) -> tuple[Tenant, ...]:
    """Read the list `tenants` of an object; empty where there is none. Raises InvalidDocument."""
    found = tuple(map(Tenant.read, reader.items("tenants")))
    if len(found) > MAX_TENANTS:
        raise InvalidDocument(
            f"{reader.path}.tenants are {len(found)}; they must be at most {MAX_TENANTS}"
        )
    names = [tenant.name for tenant in found]
    for index, name in enumerate(names):
        if name in names[:index]:
            text = f"{reader.path}.tenants[{index}].name is {name!r} as of another tenant"
            raise InvalidDocument(f"{text}; each must have a name of its own")
    return found


def to_json(tenants: Iterable[Tenant]) -> str:
    """Return what `from_json` reads."""
    return json.dumps([tenant.to_dict() for tenant in tenants], sort_keys=True)


def from_json(text: str) -> tuple[Tenant, ...]:
    """Read tenants as the operator passes them on. Raises InvalidDocument."""
    try:
        found = json.loads(text)
    except ValueError:
        raise InvalidDocument("it must be a list in JSON, as spec.tenants of a Mixture") from None
    value: Mapping[str, Any] = {"tenants": found}
    return read_tenants(Reader(value, "spec"))
