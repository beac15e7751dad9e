"""Decides which session each row of a forward call belongs to, and which rows are padding.

A session lasts as long as its KV cache: a call with a cache that was seen before continues the
sessions of that cache, any other call begins new ones, unless the caller has named them. Rows are
the flattened (batch, length) of the call. No message is made here.
"""

from __future__ import annotations

import secrets
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from moe_client.errors import InvalidRequest
from moe_client.plan import Plan
from moe_client.repin import Told


@dataclass(frozen=True, slots=True)
class Call:
    """One forward call: `counts` are the rows of each session that are not padding.

    `kept` (rows,) says which rows those are; None where all are. `cached` says whether a KV cache
    holds what was computed before. `plan` says which gates apply, once that is known. `told` is the
    re-pin that the first layer's answer told of, which ended nothing.
    """

    sessions: tuple[str, ...]
    rows: int
    counts: tuple[int, ...]
    kept: torch.Tensor | None = None
    cached: bool = False
    plan: Plan | None = None
    told: Told | None = None


class Current(threading.local):
    """This thread's forward call, and its last one.

    `loose` is a call of some layer alone, from its gate to its experts.
    """

    call: Call | None = None
    loose: Call | None = None
    last: Call | None = None


def shape_of(kwargs: Mapping[str, Any], args: Sequence[Any]) -> tuple[int, int] | None:
    """Return (batch, length) of a call of a transformers model; None where it names no input."""
    given = kwargs.get("input_ids")
    if given is None:
        given = kwargs.get("inputs_embeds")
    if given is None and args:
        given = args[0]
    return None if given is None else (int(given.shape[0]), int(given.shape[1]))


def holds_rows(cache: Any) -> bool:
    """Say whether a KV cache has anything in it; None has not."""
    return cache is not None and int(cache.get_seq_length()) > 0


def make_call(sessions: Sequence[str], length: int, mask: Any, *, cached: bool = False) -> Call:
    """Return the call of a batch. `mask` (batch, past + length) holds 0 for padding, or is None.

    A mask of any other form (one that transformers has already expanded) hides no rows.
    """
    batch = len(sessions)
    rows = batch * length
    if not isinstance(mask, torch.Tensor) or mask.ndim != 2 or mask.shape[1] < length:
        return Call(tuple(sessions), rows, (length,) * batch, cached=cached)
    real = mask[:, -length:].bool().cpu()  # (batch, length)
    if bool(real.all()):
        return Call(tuple(sessions), rows, (length,) * batch, cached=cached)
    counts = tuple(int(count) for count in real.sum(dim=1))
    return Call(tuple(sessions), rows, counts, real.flatten(), cached)


def fresh(count: int) -> tuple[str, ...]:
    """Return names for new sessions: random, so that no two clients share one."""
    return tuple(secrets.token_hex(12) for _ in range(count))


def named(names: str | Sequence[str], batch: int) -> tuple[str, ...]:
    """Return the caller's names for the rows of a batch. Raises InvalidRequest for a wrong number.

    A single name stands for a batch of one; in a larger batch its rows are `name/0`, `name/1`, …
    """
    if isinstance(names, str):
        return (names,) if batch == 1 else tuple(f"{names}/{row}" for row in range(batch))
    if len(names) != batch:
        raise InvalidRequest(f"{len(names)} sessions are named for a batch of {batch}")
    if len(set(names)) != batch:
        raise InvalidRequest(f"sessions are {list(names)}; each row needs a name of its own")
    return tuple(names)


class Caches:
    """Remembers the sessions of each KV cache, for as long as the cache lives."""

    def __init__(self) -> None:
        self._sessions: weakref.WeakKeyDictionary[Any, tuple[str, ...]] = (
            weakref.WeakKeyDictionary()
        )
        self._lock = threading.Lock()

    def sessions(self, cache: Any, batch: int) -> tuple[str, ...]:
        """Return the sessions of a cache, new ones where it is unknown or of another batch."""
        with self._lock:
            known = None if cache is None else self._sessions.get(cache)
        return known if known is not None and len(known) == batch else fresh(batch)

    def remember(self, cache: Any, sessions: tuple[str, ...]) -> None:
        """Note whose keys and values a cache holds."""
        if cache is not None:
            with self._lock:
                self._sessions[cache] = sessions
