"""Who leads, when several operators run: the holder of one Lease.

A holder that does not renew for the lease's duration, measured by the watcher's own clock since
the record last changed, has lost it. A leader that cannot renew stops writing before that, by its
own clock, which goes on while the process is stopped. What a leader writes is fenced on its own;
the Lease only keeps two from working against each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from logging import WARNING
from typing import Any, Final

from moe_core.log import tell
from moe_operator.cluster import ApiError, Conflict, Exists, Lister, NotFound, Writer
from moe_operator.kinds import LEASE, Body, metadata, spec_of

DURATION_S: Final = 15.0
_LEADS_S: Final = 0.8 * DURATION_S  # since the last renewal was sent: no longer does it lead
_RENEW_S: Final = 3.0
_RETRY_S: Final = 0.5


class LeaseLost(RuntimeError):
    """Another may lead now: this process must decide nothing more."""


@dataclass(slots=True)
class Lease:
    """One candidate for the Lease `namespace`/`name`."""

    writer: Writer
    lister: Lister
    namespace: str
    name: str
    identity: str
    clock: Callable[[], float]
    renew_s: float = _RENEW_S
    _record: Body | None = None
    _changed_at: float = 0.0
    _renewed_at: float = field(default=0.0)

    async def acquire(self) -> None:
        """Wait until this process leads."""
        waiting = False
        while not await self._try():
            if not waiting:
                holder = spec_of(self._record or {}).get("holderIdentity")
                tell("waiting_for_lease", holder=holder)
                waiting = True
            await asyncio.sleep(_RETRY_S)
        tell("leading", identity=self.identity)

    async def hold(self) -> None:
        """Renew for ever. Raises LeaseLost."""
        while True:
            await asyncio.sleep(self.renew_s)
            while not await self._try():
                if self._holder() not in ("", self.identity):
                    raise LeaseLost(f"{self._holder()} holds the lease {self.name}")
                if not self.leads():
                    raise LeaseLost(f"the lease {self.name} could not be renewed in time")
                await asyncio.sleep(_RETRY_S)

    def leads(self) -> bool:
        """Return whether nobody else can have taken the Lease yet."""
        renewed = self.clock() - self._renewed_at <= _LEADS_S
        return renewed and self._holder() == self.identity

    async def release(self) -> None:
        """Let another take over at once."""
        if self._record is not None and self._holder() == self.identity:
            try:
                await self.writer.replace(LEASE, self._body(self._record, holder=""))
            except ApiError as error:
                tell("lease_not_released", level=WARNING, reason=error)

    async def _try(self) -> bool:
        """Take or renew the lease; False where that is not possible now."""
        began = self.clock()
        try:
            record = await self._read()
            if record is None:
                self._record = await self.writer.create(LEASE, self._body(None, self.identity))
            elif self._takeable():
                self._record = await self.writer.replace(LEASE, self._body(record, self.identity))
            else:
                return False
        except (Conflict, Exists):
            return False
        except ApiError as error:
            tell("lease_unusable", level=WARNING, reason=error)
            return False
        self._renewed_at = began
        return True

    async def _read(self) -> Body | None:
        try:
            record = await self.lister.get(LEASE, self.namespace, self.name)
        except NotFound:
            return None
        if self._record is None or spec_of(record) != spec_of(self._record):
            self._changed_at = self.clock()
        self._record = record
        return record

    def _holder(self) -> str:
        return str(spec_of(self._record or {}).get("holderIdentity") or "")

    def _takeable(self) -> bool:
        if self._holder() in ("", self.identity):
            return True
        lasts_s = float(spec_of(self._record or {}).get("leaseDurationSeconds") or DURATION_S)
        return self.clock() - self._changed_at > lasts_s

    def _body(self, record: Body | None, holder: str) -> dict[str, Any]:
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = spec_of(record or {})
        new = before.get("holderIdentity") != holder
        transitions = int(before.get("leaseTransitions") or 0)
        own = {"name": self.name, "namespace": self.namespace}
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.name,
            "metadata": own if record is None else dict(metadata(record)),
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": int(DURATION_S),
                "acquireTime": stamp if new else before.get("acquireTime", stamp),
                "renewTime": stamp,
                "leaseTransitions": transitions + (1 if new and record is not None else 0),
            },
        }
