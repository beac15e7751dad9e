"""What happens in a layer of an attached model: its gates are applied, its rows sent, answered.

Everything that is told of sessions on the way is written into their book. A gate that a router
refuses is asked for anew: where nothing of the old one is in the call yet, the layer is repeated
with the new one, and nobody sees it; else the call ends, as `repin` says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from moe_client.calls import Call, Current, fresh
from moe_client.choosing import choose
from moe_client.client import RouterClient
from moe_client.counters import Counters
from moe_client.errors import InvalidRequest, Mismatch, MoeError
from moe_client.messages import Answer, Choice, Rows
from moe_client.messages import Sequence as SequenceRows
from moe_client.plan import Plan, moved
from moe_client.repin import OnRepin, gate_objection, objection, outdated, told_by
from moe_client.router_module import Chosen, Forward
from moe_client.scope import Scope
from moe_client.serving import Serving
from moe_client.sessions import SessionBook
from moe_client.tensors import to_numpy, to_torch

TRIES = 4
"""Of one layer: each after the first is the answer to another change of the table."""


class Applying:
    """The layers of one attached model. Safe from any thread, each of which has a call of its own.

    `trunk_sha256` is that of the model, `first_layer` its first with experts.
    """

    def __init__(
        self,
        client: RouterClient,
        serving: Serving,
        book: SessionBook,
        scope: Scope,
        on_repin: OnRepin,
        trunk_sha256: str,
        first_layer: int,
        count: Callable[[Counters], None],
    ) -> None:
        self.current = Current()
        self._client, self._serving, self._book, self._scope = client, serving, book, scope
        self._on_repin, self._trunk, self._first = on_repin, trunk_sha256, first_layer
        self._count = count

    def begin(self, call: Call) -> None:
        """Begin a forward call in this thread: its sessions' gates are known from then on."""
        contexts = self._scope.contexts_of(len(call.sessions))
        plan = self._serving.plan(call.sessions, self._scope.gates, contexts)
        self.current.call = replace(call, plan=plan)

    def end(self) -> Call | None:
        """End this thread's forward call and return it."""
        call, self.current.call = self.current.call, None
        if call is not None:
            self.current.last = call
        return call

    def choose(self, layer: int, own: Forward, hidden: torch.Tensor) -> Chosen:
        """Return what each row's version of the gate chooses; `own` applies the model's own."""
        call = self.current.call
        if call is None:
            call = self.current.loose = self._loose(hidden.numel() // hidden.shape[-1])
        plan = _planned(call)
        return own(hidden) if plan.plain else self._chosen(layer, call, hidden)

    def compute(
        self, layer: int, hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Return the experts' combined answer (T, H); padding rows come back as zeros.

        Raises MoeError.
        """
        call = self.current.call or self.current.loose or self._loose(len(hidden))
        self.current.loose = None
        if len(hidden) != call.rows:
            raise InvalidRequest(
                f"layer {layer} was given {len(hidden)} rows; the call has {call.rows}"
            )
        for _ in range(TRIES):
            try:
                answer = self._ask_kept(layer, call, hidden, index, weights)
            except Mismatch as error:
                call, refusal = self._renewed(layer, call, error), error
                _, weights, index = self._chosen(layer, call, hidden)
            else:
                self._scope.tell(layer, index)
                return answer
        self._count(Counters(failed=1))
        raise refusal

    def _renewed(self, layer: int, call: Call, refusal: Mismatch) -> Call:
        """Return the call with the gates that routers name now.

        Raises the refusal where they are the same, by the table that refused; Repinned where gates
        that are named no more have a part in the call.
        """
        try:
            contexts = _planned(call).contexts
            plan = self._serving.renew(call.sessions, self._scope.gates, contexts)
        except MoeError:
            self._count(Counters(failed=1))
            raise
        lost = moved(call.sessions, _planned(call), plan)
        epoch = self._serving.mixture.epoch
        if not lost and epoch <= refusal.epoch:
            self._count(Counters(failed=1))
            raise refusal
        begun = [names for name, names in lost.items() if self._book.state(name).rows]
        self._count(Counters(repins=sum(map(len, begun))))
        began_before = call.cached or layer != self._first
        if error := gate_objection(self._on_repin, lost, epoch, began_before=began_before):
            raise error from refusal
        renewed = replace(call, plan=plan)
        if self.current.call is call:
            self.current.call = renewed
        return renewed

    def _chosen(self, layer: int, call: Call, hidden: torch.Tensor) -> Chosen:
        plan = _planned(call)
        variants = plan.variants(self._gate(layer, plan))
        order = {variant: number for number, variant in enumerate(dict.fromkeys(variants))}
        each = torch.tensor([order[variant] for variant in variants])
        which = each.repeat_interleave(call.rows // len(variants))  # (T,)
        return choose([plan.routers[variant][layer] for variant in order], which, hidden)

    def _ask_kept(
        self,
        layer: int,
        call: Call,
        hidden: torch.Tensor,
        index: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
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
        sequences, gate = self._sequences(layer, call)
        rows = Rows(layer, to_numpy(hidden), sequences)
        choice = Choice(gate, to_numpy(index.to(torch.int32)), to_numpy(weights))
        try:
            answer = self._client.dispatch(rows, choice, trunk_sha256=self._trunk)
        except MoeError as error:
            # What a gate is refused for is repeated, or counted as failed when it cannot be.
            self._count(Counters(requests=1, failed=int(not isinstance(error, Mismatch))))
            raise
        self._book.record(rows, answer)
        self._count(_done(rows, answer))
        began_before = call.cached or layer != self._first
        if repinned := objection(self._on_repin, rows, answer, began_before=began_before):
            raise repinned
        if repinned := outdated(self._on_repin, call.told, answer):
            raise repinned
        if not began_before and self.current.call is call:
            self.current.call = replace(call, told=told_by(rows, answer))
        return to_torch(answer.hidden, hidden)

    def _sequences(self, layer: int, call: Call) -> tuple[tuple[SequenceRows, ...], str]:
        """Return the sessions that have rows, and the gate that chose where they name none."""
        plan, forced = _planned(call), self._scope.versions
        name = self._gate(layer, plan)
        parts = zip(call.sessions, call.counts, plan.versions(name), strict=True)
        asking = [part for part in parts if part[1]]
        common = asking[0][2]
        sequences = tuple(
            replace(
                self._book.ask(session, count, forced),
                gate_sha256="" if sha256 == common else sha256,
                gate_forced=name in plan.forced,
            )
            for session, count, sha256 in asking
        )
        return sequences, common

    def _gate(self, layer: int, plan: Plan) -> str:
        mixture = self._serving.mixture
        gate = mixture.gate_of(layer)
        if gate is None or any(gate.name not in pins for pins in plan.pins):
            name = "none" if gate is None else gate.name
            raise Mismatch(
                f"the gate of layer {layer} is not the one that the sessions began with; "
                f"mixture {mixture.name} now has {name}: begin new sessions",
                epoch=mixture.epoch,
            )
        return gate.name

    def _loose(self, rows: int) -> Call:
        """Return the call of a layer that is run alone: a session of its own."""
        sessions = fresh(1)
        contexts = self._scope.contexts_of(1)
        plan = self._serving.plan(sessions, self._scope.gates, contexts)
        return Call(sessions, rows, (rows,), plan=plan)


def _planned(call: Call) -> Plan:
    assert call.plan is not None  # since it began
    return call.plan


def _done(rows: Rows, answer: Answer) -> Counters:
    degraded = any(outcome.degraded_ppm for outcome in answer.outcomes)
    repins = sum(len(outcome.repinned_experts) for outcome in answer.outcomes)
    return Counters(1, len(rows.hidden), degraded_requests=int(degraded), repins=repins)
