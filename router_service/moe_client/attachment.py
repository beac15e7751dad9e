"""Makes a transformers model run its experts through the routers of a mixture.

The gate, attention and everything else stay in the model; only what transformers calls the
experts implementation is another one: rows go out with their choice of experts, and come back
combined. Sessions, checks and transport are decided elsewhere; this module puts them together.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import astuple, dataclass, replace
from types import TracebackType
from typing import Any, Self

import grpc
import torch

from moe_client.agreement import check_digests, check_shape
from moe_client.aio import DEFAULT_TIMEOUT_S
from moe_client.alignment import align
from moe_client.calls import Caches, Call, fresh, make_call, named, shape_of
from moe_client.client import RouterClient
from moe_client.errors import InvalidRequest, MoeError
from moe_client.messages import Choice, Rows
from moe_client.mixture import Mixture
from moe_client.remote import REMOTE, place, remove
from moe_client.sessions import SessionBook, SessionState
from moe_client.site import find_sites
from moe_client.tensors import to_numpy, to_torch

Names = str | Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Counters:
    """What an attachment has done. A request is one message of one layer."""

    requests: int = 0
    rows: int = 0
    failed: int = 0
    retries: int = 0
    degraded_requests: int = 0
    repins: int = 0

    def plus(self, more: Counters) -> Counters:
        """Return the sums."""
        return Counters(*(sum(pair) for pair in zip(astuple(self), astuple(more), strict=True)))


def attach(
    model: Any,
    addresses: str | Sequence[str],
    *,
    mixture: str | None = None,
    session: Names = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    credentials: grpc.ChannelCredentials | None = None,
    digests: bool = True,
) -> Attachment:
    """Run the experts of `model` at these routers, until the attachment is detached.

    `mixture` may be left out where the routers serve one only. `session` names the sequences of
    every batch (see `Attachment.sessions`). Each layer's request ends within `timeout_s`.
    `digests=False` skips the comparison of trunk and gate, which reads all of the trunk.
    Raises Mismatch where the model is not the mixture's, naming both values; InvalidRequest where
    it has no experts to attach; Unavailable where no router answers.
    """
    if model.get_experts_implementation()[""] == REMOTE:
        raise InvalidRequest("the model is attached already; detach it first")
    sites = find_sites(model)
    client = RouterClient(
        addresses, mixture=mixture or "", timeout_s=timeout_s, credentials=credentials
    )
    try:
        served = client.describe()
        check_shape(model, sites, served)
        if digests:
            check_digests(model, sites, served)
    except BaseException:
        client.close()
        raise
    align(model)
    return Attachment(model, client, served, session)


class Attachment:
    """A model whose experts run elsewhere. A context manager: leaving it detaches.

    Forward passes may run in several threads at once. A request that fails raises a MoeError out
    of the model's forward; the model is as usable afterwards as before.
    """

    def __init__(
        self,
        model: Any,
        client: RouterClient,
        mixture: Mixture,
        session: Names,
    ) -> None:
        self.mixture = mixture
        self._model = model
        self._client = client
        self._book = SessionBook()
        self._caches = Caches()
        self._names: ContextVar[str | Sequence[str] | None] = ContextVar(
            "sessions", default=session
        )
        self._thread = threading.local()
        self._lock = threading.Lock()
        self._counters = Counters()
        self._sites = find_sites(model)
        for site in self._sites:
            place(site.experts, self, site.layer)
        base = model.base_model
        self._hooks = [
            base.register_forward_pre_hook(self._begin, with_kwargs=True),
            base.register_forward_hook(self._end, with_kwargs=True, always_call=True),
        ]
        self._before = model.get_experts_implementation()
        model.set_experts_implementation(REMOTE)

    @contextmanager
    def sessions(self, names: str | Sequence[str]) -> Iterator[None]:
        """Name the sequences of the batches that are computed inside, in this context.

        A session named again goes on where it was: with the versions that it began with. Without
        names a session is new with each KV cache, and lasts as long as that.
        """
        token = self._names.set(names)
        try:
            yield
        finally:
            self._names.reset(token)

    def session(self, name: str) -> SessionState:
        """Return what has happened to a session so far."""
        return self._book.state(name)

    def forget(self, name: str) -> None:
        """End a session: its name begins a new one from now on."""
        self._book.forget(name)

    @property
    def last(self) -> tuple[SessionState, ...]:
        """The sessions of this thread's last forward call, in the order of the batch, as of now."""
        call: Call | None = getattr(self._thread, "last", None)
        return tuple(self._book.state(name) for name in call.sessions) if call else ()

    @property
    def counters(self) -> Counters:
        """What was done since the model was attached."""
        with self._lock:
            return replace(self._counters, retries=self._client.retries)

    def detach(self) -> None:
        """Give the model its own experts back and end the connections. Once more does nothing."""
        if not self._hooks:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for site in self._sites:
            remove(site.experts)
        self._model.set_experts_implementation(self._before)
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.detach()

    def compute(
        self, layer: int, hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Return the experts' combined answer (T, H); padding rows come back as zeros.

        Raises MoeError.
        """
        call = getattr(self._thread, "call", None) or Call(fresh(1), len(hidden), (len(hidden),))
        if len(hidden) != call.rows:
            raise InvalidRequest(
                f"layer {layer} was given {len(hidden)} rows; the call has {call.rows}"
            )
        if call.kept is None:
            return self._ask(layer, call, hidden, index, weights)
        kept = call.kept.to(hidden.device)
        answer = torch.zeros_like(hidden)
        if bool(kept.any()):
            answer[kept] = self._ask(layer, call, hidden[kept], index[kept], weights[kept])
        return answer

    def _ask(
        self,
        layer: int,
        call: Call,
        hidden: torch.Tensor,
        index: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        gate = self.mixture.gate_of(layer)
        assert gate is not None  # checked when the model was attached
        parts = zip(call.sessions, call.counts, strict=True)
        sequences = tuple(self._book.ask(name, count) for name, count in parts if count)
        rows = Rows(layer, to_numpy(hidden), sequences)
        choice = Choice(gate.sha256, to_numpy(index.to(torch.int32)), to_numpy(weights))
        try:
            answer = self._client.dispatch(rows, choice, trunk_sha256=self.mixture.trunk_sha256)
        except MoeError:
            self._count(Counters(requests=1, failed=1))
            raise
        self._book.record(rows, answer)
        degraded = any(outcome.degraded_ppm for outcome in answer.outcomes)
        repins = sum(len(outcome.repinned_experts) for outcome in answer.outcomes)
        done = Counters(1, len(rows.hidden), degraded_requests=int(degraded), repins=repins)
        self._count(done)
        return to_torch(answer.hidden, hidden)

    def _count(self, more: Counters) -> None:
        with self._lock:
            self._counters = self._counters.plus(more)

    def _begin(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        shape = shape_of(kwargs, args)
        if shape is None:
            return
        batch, length = shape
        names = self._names.get()
        if names is None:
            sessions = self._caches.sessions(kwargs.get("past_key_values"), batch)
        else:
            sessions = named(names, batch)
        self._thread.call = make_call(sessions, length, kwargs.get("attention_mask"))

    def _end(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        call: Call | None = getattr(self._thread, "call", None)
        if call is None:
            return
        self._thread.call, self._thread.last = None, call
        if self._names.get() is None:
            self._caches.remember(getattr(out, "past_key_values", None), call.sessions)
