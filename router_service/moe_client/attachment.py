"""Makes a transformers model run its experts through the routers of a mixture.

Attention and everything else stay in the model; only what transformers calls the experts
implementation is another one: rows go out with their choice of experts, and come back combined.
The model's router modules choose, each row by its session's version of the gate. Sessions, checks
and transport are decided elsewhere; this module puts them together.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

from moe_client.agreement import check_digests, check_shape, trust
from moe_client.aio import DEFAULT_TIMEOUT_S
from moe_client.alignment import align
from moe_client.applying import Applying
from moe_client.calls import Caches, holds_rows, make_call, named, shape_of
from moe_client.channel import Credentials
from moe_client.client import RouterClient
from moe_client.counters import Counters
from moe_client.errors import InvalidRequest
from moe_client.gates import Gates
from moe_client.inside import Targets
from moe_client.losses import LossWatch
from moe_client.mixture import Mixture
from moe_client.own_policy import OwnPolicy
from moe_client.remote import REMOTE, place, remove
from moe_client.repin import OnRepin
from moe_client.router_module import own_forward, stand_in
from moe_client.router_module import remove as remove_stand_in
from moe_client.scope import Names, Note, Scope
from moe_client.serving import Serving
from moe_client.sessions import SessionBook, SessionState
from moe_client.site import find_sites
from moe_client.worth import Worth


def attach(
    model: Any,
    routers: Targets,
    *,
    mixture: str | None = None,
    session: Names = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    credentials: Credentials | None = None,
    token: str | None = None,
    digests: bool = True,
    forced: Mapping[str, str] | None = None,
    forced_gates: Mapping[str, str] | None = None,
    on_repin: OnRepin = OnRepin.REPREFILL,
    report_outcomes: bool = False,
) -> Attachment:
    """Run the experts of `model` at these routers, until the attachment is detached.

    `routers` are their addresses, or one router of this process, asked without gRPC: a
    `moe_router.embedded.EmbeddedRouter`.
    `mixture` may be left out where the routers serve one only. `session` names the sequences of
    every batch (see `Attachment.sessions`). `credentials` are a `moe_client.Tls` where routers ask
    for certificates, `token` is that of a tenant where they ask for one (without it that in
    MOE_TOKEN). Each layer's request ends within `timeout_s`.
    `digests=False` skips the comparison of trunk and gate, which reads all of the trunk, and takes
    the model's gates for the stable ones. `forced` are versions by expert, `forced_gates` by gate
    (see `Attachment.forced`), `on_repin` says what follows when a
    session loses a version (see `OnRepin`). With `report_outcomes` the routers are told, beside
    all requests, the loss of the tokens that sessions read: evidence for rollouts.
    The model's gates may be any that the mixture names, or ones that were retired: what a session
    is to use instead comes from the routers. Raises Mismatch where the model is not the mixture's,
    naming both values; InvalidRequest where it has no experts to attach; Unavailable where no
    router answers.
    """
    if model.get_experts_implementation()[""] == REMOTE:
        raise InvalidRequest("the model is attached already; detach it first")
    sites = find_sites(model)
    client = RouterClient(
        routers,
        mixture=mixture or "",
        timeout_s=timeout_s,
        credentials=credentials,
        token=token,
    )
    try:
        scope = Scope(session, forced, forced_gates)
        served = client.describe()
        check_shape(model, sites, served)
        own = (check_digests if digests else trust)(model, sites, served)
        align(model)
        gates = Gates(sites, OwnPolicy.of(model), own, client.fetch_gate)
        gates.prepare(served)
    except BaseException:
        client.close()
        raise
    return Attachment(
        model, client, served, gates, scope, OnRepin(on_repin), reporting=report_outcomes
    )


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
        gates: Gates,
        scope: Scope,
        on_repin: OnRepin,
        *,
        reporting: bool,
    ) -> None:
        self.on_repin = on_repin
        self.reporting = reporting
        self._model = model
        self._client = client
        self._book = SessionBook()
        self._caches = Caches()
        self._scope = scope
        self._losses = LossWatch()
        self._lock = threading.Lock()
        self._counters = Counters()
        self._sites = find_sites(model)
        self._serving = Serving(client, self._book, gates, mixture)
        self._applying = Applying(
            client,
            self._serving,
            self._book,
            scope,
            on_repin,
            mixture.trunk_sha256,
            self._sites[0].layer,
            self._count,
        )
        for site in self._sites:
            place(site.experts, self._applying, site.layer)
            if site.router is not None:
                own = partial(self._applying.choose, site.layer, own_forward(site.router))
                stand_in(site.router, own)
        base = model.base_model
        self._hooks = [
            base.register_forward_pre_hook(self._begin, with_kwargs=True),
            base.register_forward_hook(self._end, with_kwargs=True, always_call=True),
        ]
        if reporting:
            self._hooks.append(model.register_forward_hook(self._measure, with_kwargs=True))
        self._before = model.get_experts_implementation()
        model.set_experts_implementation(REMOTE)

    @property
    def mixture(self) -> Mixture:
        """What the routers serve, as they said last."""
        return self._serving.mixture

    def sessions(self, names: str | Sequence[str]) -> AbstractContextManager[None]:
        """Name the sequences of the batches that are computed inside, in this context.

        A session named again goes on where it was: with the versions that it began with. Without
        names a session is new with each KV cache, and lasts as long as that.
        """
        return self._scope.sessions(names)

    def contexts(self, names: str | Sequence[str]) -> AbstractContextManager[None]:
        """Say what the sequences of the batches inside are about, in this context: one name for all
        of them, or one each; empty for nothing. The policy of the gate adds that context's biases
        to the logits. A name that it does not know is refused, with those that it knows."""
        return self._scope.contexts(names)

    def forced(
        self, versions: Mapping[str, str] | None = None, gates: Mapping[str, str] | None = None
    ) -> AbstractContextManager[None]:
        """Have the rows of calls inside computed by these versions (sha256 by expert), and chosen
        for by these (sha256 by gate), in this context, whatever their sessions' pins say: to
        compare versions. The routing table must name each; else the call is refused."""
        return self._scope.forced(versions or {}, gates or {})

    def choices(self, note: Note) -> AbstractContextManager[None]:
        """Tell `note` of each layer's choice of experts in the calls inside, in this context."""
        return self._scope.choices(note)

    def session(self, name: str) -> SessionState:
        """Return what has happened to a session so far."""
        return self._book.state(name)

    def forget(self, name: str) -> None:
        """End a session: its name begins a new one from now on."""
        self._book.forget(name)

    def report(
        self, name: str, *, tokens: int = 0, loss_bits: float = 0.0, score: float | None = None
    ) -> None:
        """Tell the routers, later and beside all requests, what a session's answers were worth.

        `loss_bits` is next-token loss summed over `tokens`; a `score` is any number, higher being
        better. Call it as often as there is news. Raises InvalidRequest where no router has
        answered the session, or for numbers that are not finite.
        """
        scores, total = (0, 0.0) if score is None else (1, score)
        token = self._book.state(name).start_token
        self._client.report(Worth(name, token, tokens, loss_bits, scores, total))

    @property
    def last(self) -> tuple[SessionState, ...]:
        """The sessions of this thread's last forward call, in the order of the batch, as of now."""
        call = self._applying.current.last
        return tuple(self._book.state(name) for name in call.sessions) if call else ()

    @property
    def counters(self) -> Counters:
        """What was done since the model was attached."""
        with self._lock:
            return replace(
                self._counters,
                retries=self._client.retries,
                reported=self._client.reported,
                unreported=self._client.unreported,
            )

    def detach(self) -> None:
        """Give the model its own experts back and end the connections. Once more does nothing."""
        if not self._hooks:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for site in self._sites:
            remove(site.experts)
            if site.router is not None:
                remove_stand_in(site.router)
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

    def _count(self, more: Counters) -> None:
        with self._lock:
            self._counters = self._counters.plus(more)

    def _begin(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        shape = shape_of(kwargs, args)
        if shape is None:
            return
        batch, length = shape
        cache, names = kwargs.get("past_key_values"), self._scope.names
        sessions = self._caches.sessions(cache, batch) if names is None else named(names, batch)
        mask, cached = kwargs.get("attention_mask"), holds_rows(cache)
        self._applying.begin(make_call(sessions, length, mask, cached=cached))

    def _end(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        call = self._applying.end()
        if call is not None and self._scope.names is None:
            self._caches.remember(getattr(out, "past_key_values", None), call.sessions)

    def _measure(
        self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
    ) -> None:
        """Report the loss of what was read, but not where it is of several versions or of none."""
        call = self._applying.current.last
        ids = kwargs.get("input_ids", args[0] if args else None)
        if call is None:
            return
        for name, loss in self._losses.losses(call, ids, getattr(out, "logits", None)):
            state = self._book.state(name)
            if not state.degraded and not state.repinned and state.start_token:
                self.report(name, tokens=loss.tokens, loss_bits=loss.bits)
