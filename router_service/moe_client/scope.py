"""What a caller wishes for the calls inside a block: names of sessions, versions, who listens.

Held in context variables, so that threads and tasks do not see each other's wishes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from moe_client.errors import InvalidRequest
from moe_client.sessions import Forced

Names = str | Sequence[str] | None
Note = Callable[[int, torch.Tensor], None]
"""Told of a layer and which experts its gate chose, (T, k) rows of the gate's list."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Scope:
    """The wishes of one attachment; those given here hold where nothing else is said."""

    def __init__(
        self,
        session: Names,
        forced: Mapping[str, str] | None,
        forced_gates: Mapping[str, str] | None = None,
    ) -> None:
        self._names: ContextVar[Names] = ContextVar("sessions", default=session)
        versions = to_forced(forced or {})
        self._forced: ContextVar[Forced] = ContextVar("forced", default=versions)
        gates = dict(to_forced(forced_gates or {}))
        self._gates: ContextVar[Mapping[str, str]] = ContextVar("gates", default=gates)
        self._contexts: ContextVar[Names] = ContextVar("contexts", default=None)
        self._note: ContextVar[Note | None] = ContextVar("note", default=None)

    @property
    def names(self) -> Names:
        return self._names.get()

    @property
    def versions(self) -> Forced:
        return self._forced.get()

    @property
    def gates(self) -> Mapping[str, str]:
        """sha256 of versions that are wished for, by the gate's name."""
        return self._gates.get()

    def contexts_of(self, batch: int) -> tuple[str, ...]:
        """Return the context of each sequence of a batch; nothing where none is named.

        Raises InvalidRequest for a wrong number of them.
        """
        said = self._contexts.get()
        if said is None:
            return ()
        contexts = (said,) * batch if isinstance(said, str) else tuple(said)
        if len(contexts) != batch:
            raise InvalidRequest(f"{len(contexts)} contexts are named for a batch of {batch}")
        return contexts

    def tell(self, layer: int, index: torch.Tensor) -> None:
        """Tell whoever listens of a layer's choices."""
        if (note := self._note.get()) is not None:
            note(layer, index)

    @contextmanager
    def sessions(self, names: str | Sequence[str]) -> Iterator[None]:
        token = self._names.set(names)
        try:
            yield
        finally:
            self._names.reset(token)

    @contextmanager
    def contexts(self, names: str | Sequence[str]) -> Iterator[None]:
        token = self._contexts.set(names)
        try:
            yield
        finally:
            self._contexts.reset(token)

    @contextmanager
    def forced(self, versions: Mapping[str, str], gates: Mapping[str, str]) -> Iterator[None]:
        experts = self._forced.set(to_forced(versions))
        chosen = self._gates.set(dict(to_forced(gates)))
        try:
            yield
        finally:
            self._forced.reset(experts)
            self._gates.reset(chosen)

    @contextmanager
    def choices(self, note: Note) -> Iterator[None]:
        token = self._note.set(note)
        try:
            yield
        finally:
            self._note.reset(token)


def to_forced(versions: Mapping[str, str]) -> Forced:
    """Return versions by expert, or by gate, as a request has them. Raises InvalidRequest."""
    for name, sha256 in versions.items():
        if not name or not _SHA256.fullmatch(sha256):
            raise InvalidRequest(
                f"forced[{name!r}] is {sha256!r:.80}; it must be the version's sha256, "
                "64 lower-case hexadecimal digits"
            )
    return tuple(sorted(versions.items()))
