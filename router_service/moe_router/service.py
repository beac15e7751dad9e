"""The gRPC face of the engine: translates between messages and its answers, and holds no rule."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic, perf_counter
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from moe_core.log import tell, tell_error
from moe_core.tracing import Context, Span, Tracer, Untraced
from moe_router.begin import Begun
from moe_router.describe import WIRE_RUNGS, Describer, describe_mixture
from moe_router.door import Door, Entry, Metadata
from moe_router.engine import Answer, Engine
from moe_router.fates import Fate
from moe_router.gates import GateArtifacts
from moe_router.refusal import Refused
from moe_router.reporting import Reported
from moe_router.request import check_mixture
from moe_router.settle import Outcome
from moe_router.stream import R, Reply, RowsStream
from moe_router.streams import Streams
from moe_router.tables import Tables, served
from moe_router.throttle import Throttle
from moeops.v1 import router_pb2, router_pb2_grpc
from moeops.v1.router_pb2 import DispatchRequest, RouteRequest, RowsResponse

INTERNAL = 13
REFUSALS_TOLD = 16
_TRACEPARENT = "traceparent"
_PUSHBACK = "grpc-retry-pushback-ms"  # gRPC's own word for when to try again

Request = DispatchRequest | RouteRequest


class RouterServicer(router_pb2_grpc.RouterServicer):
    """Serves `moeops.v1.Router`."""

    def __init__(
        self,
        engine: Engine,
        tables: Tables,
        gates: GateArtifacts,
        describer: Describer,
        tracer: Tracer | None = None,
        door: Door | None = None,
    ) -> None:
        self._engine, self._tables, self._describer = engine, tables, describer
        self._tracer = tracer or Untraced()
        self.gates = gates
        self.streams = Streams()
        self._door = door or Door()
        self._refusals, self._climbs = Throttle(1.0), Throttle(1.0)

    async def Dispatch(  # noqa: N802
        self, request_iterator: AsyncIterator[DispatchRequest], context: Any
    ) -> AsyncIterator[RowsResponse]:
        async with _refusing(context, self._tell_refusal):
            async for response in self._pipe(request_iterator, context):
                yield response

    async def Route(  # noqa: N802
        self, request_iterator: AsyncIterator[RouteRequest], context: Any
    ) -> AsyncIterator[RowsResponse]:
        async with _refusing(context, self._tell_refusal):
            async for response in self._pipe(request_iterator, context):
                yield response

    async def DescribeMixture(  # noqa: N802
        self, request: router_pb2.DescribeMixtureRequest, context: Any
    ) -> router_pb2.DescribeMixtureResponse:
        async with _refusing(context):
            self._door.enter(_metadata(context))
            return describe_mixture(request, served(self._tables))

    async def Begin(  # noqa: N802
        self, request: router_pb2.BeginRequest, context: Any
    ) -> router_pb2.BeginResponse:
        async with _refusing(context, self._tell_refusal):
            self._door.enter(_metadata(context))
            view, begun = await self._engine.begin(request)
            uid, epoch, sessions = view.table.uid, view.table.epoch, map(_session, begun)
            return router_pb2.BeginResponse(table_uid=uid, epoch=epoch, sessions=sessions)

    async def FetchGate(  # noqa: N802
        self, request: router_pb2.FetchGateRequest, context: Any
    ) -> AsyncIterator[router_pb2.GateChunk]:
        async with _refusing(context, self._tell_refusal):
            self._door.enter(_metadata(context))
            view = served(self._tables)
            check_mixture(request.mixture, view)
            async for data, size in self.gates.chunks(view, request.sha256):
                yield router_pb2.GateChunk(data=data, size=size)

    async def Describe(  # noqa: N802
        self, request: router_pb2.DescribeRequest, context: Any
    ) -> router_pb2.DescribeResponse:
        return self._describer.describe(request)

    async def ReportOutcome(  # noqa: N802
        self, request: router_pb2.ReportOutcomeRequest, context: Any
    ) -> router_pb2.ReportOutcomeResponse:
        async with _refusing(context, self._tell_refusal):
            self._door.enter(_metadata(context))
            reported = await self._engine.report(request)
            for _, refused in reported.refused:
                self._tell_refusal(refused)
            return _reported(reported)

    def enter(self, metadata: Metadata) -> Entry:
        """Let a caller in. Raises Refused."""
        return self._door.enter(metadata)

    async def answer(self, request: Request, entry: Entry, around: Context | None = None) -> Reply:
        """Answer a request, or say what failed; `around` is the trace that its caller is in."""
        parent = Context.parse(request.traceparent) if request.traceparent else around
        span = self._tracer.begin("request", parent, monotonic())
        if span is None:
            return await self._serve(request, None, entry)
        failure = "nobody waits for the answer any more"
        try:
            reply = await self._serve(request, span, entry)
            failure = reply.response.failure.message
            return reply
        finally:
            span.end(monotonic(), failure)

    def _pipe(self, requests: AsyncIterator[R], context: Any) -> AsyncIterator[RowsResponse]:
        """Give the answers of a stream. Raises Refused."""
        around, entry = _trace_of(context), self.enter(_metadata(context))
        stream: RowsStream[R] = RowsStream(lambda request: self.answer(request, entry, around))
        return self.streams.run(stream, requests)

    async def _serve(self, request: Request, span: Span | None, entry: Entry) -> Reply:
        began = perf_counter()
        try:
            entry.check()
            if isinstance(request, DispatchRequest):
                answer = await self._engine.dispatch(request, span, entry.caller)
            else:
                answer = await self._engine.route(request, span, entry.caller)
        except Refused as refused:
            self._tell_refusal(refused, span)
            return Reply(refusal(request, refused))
        except Exception as error:
            tell_error("bug", reason=repr(error), request_id=request.request_id, **_ids(span))
            response = RowsResponse(request_id=request.request_id)
            response.failure.code = INTERNAL
            response.failure.message = f"the router failed: {error!r}"
            return Reply(response)
        for fate in answer.fates:
            self._tell_climbs(fate.outcome, span)
        response = RowsResponse(
            request_id=request.request_id,
            hidden=_bytes(answer.hidden),
            sequences=[_outcome(fate) for fate in answer.fates],
            epoch=answer.epoch,
            router_us=int((perf_counter() - began) * 1e6),
        )
        return Reply(response, lambda: self._follow(answer))

    def _follow(self, answer: Answer) -> None:
        try:
            self._engine.follow(answer)
        except Exception as error:  # whatever it is, the stream goes on
            tell_error("bug", reason=repr(error))

    def _tell_refusal(self, refused: Refused, span: Span | None = None) -> None:
        held = self._refusals.allows(refused.code, perf_counter())
        if held is not None:
            code = refused.code.name
            why = refused.message
            tell("request_refused", code=code, reason=why, held_back=held, **_ids(span))

    def _tell_climbs(self, outcome: Outcome, span: Span | None) -> None:
        for rung, expert_id, rows in outcome.rungs:
            held = self._climbs.allows((rung, expert_id), perf_counter())
            if held is not None:
                ids = _ids(span)
                tell("ladder", rung=rung, expert=expert_id, rows=rows, held_back=held, **ids)


@asynccontextmanager
async def _refusing(
    context: Any, told: Callable[[Refused], None] = lambda _: None
) -> AsyncIterator[None]:
    """End a call with the status of what is refused in it, and with when to try again."""
    try:
        yield
    except Refused as refused:
        told(refused)
        code = next(c for c in grpc.StatusCode if c.value[0] == refused.code)
        again = ((_PUSHBACK, str(refused.retry_after_ms)),) if refused.retry_after_ms else ()
        await context.abort(code, refused.message, again)
        raise


def refusal(request: Request, refused: Refused) -> RowsResponse:
    """Return the response to a request that is refused."""
    return RowsResponse(request_id=request.request_id, failure=refused.to_failure())


def _ids(span: Span | None) -> dict[str, Any]:
    return {} if span is None else span.context.ids


def _metadata(context: Any) -> tuple[tuple[str, str | bytes], ...]:
    return tuple((key, value) for key, value in context.invocation_metadata() or ())


def _trace_of(context: Any) -> Context | None:
    """Return what the stream's metadata says of its caller's trace."""
    found = dict(_metadata(context)).get(_TRACEPARENT, "")
    return Context.parse(found) if isinstance(found, str) else None


def _session(begun: Begun) -> router_pb2.SessionGates:
    pins = [router_pb2.GatePin(name=name, sha256=v.sha256) for name, v in begun.gates]
    return router_pb2.SessionGates(start_token=begun.token, gates=pins)


def _reported(reported: Reported) -> router_pb2.ReportOutcomeResponse:
    """Return what was taken, and what not; the first refusals with their sentences."""
    refused = []
    for number, (index, why) in enumerate(reported.refused):
        failure = why.to_failure()
        if number >= REFUSALS_TOLD:
            failure.ClearField("message")
        refused.append(router_pb2.RefusedOutcome(index=index, failure=failure))
    return router_pb2.ReportOutcomeResponse(accepted=reported.accepted, refused=refused)


def _bytes(hidden: npt.NDArray[Any]) -> bytes:
    return np.ascontiguousarray(hidden).tobytes()


def _outcome(fate: Fate) -> router_pb2.SequenceOutcome:
    outcome = fate.outcome
    return router_pb2.SequenceOutcome(
        start_token=fate.token,
        degraded_ppm=round(1e6 * outcome.lost / outcome.mass) if outcome.mass > 0 else 0,
        degraded=fate.degraded,
        repinned_experts=[one.name for one in fate.repinned if not one.gate],
        repinned_gates=[one.name for one in fate.repinned if one.gate],
        rungs=[
            router_pb2.RungRows(rung=WIRE_RUNGS[rung], expert_id=expert_id, rows=rows)
            for rung, expert_id, rows in outcome.rungs
        ],
    )
