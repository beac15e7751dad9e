"""Makes Dispatch messages for tests and reads their answers, without a client library."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

import grpc
import numpy as np

from moe_core.dtypes import by_name, by_numpy
from moe_core.table import Table
from moeops.v1.router_pb2 import DispatchRequest, RouteRequest, RowsResponse, SequenceRows
from moeops.v1.router_pb2_grpc import RouterStub

_REQUEST_IDS = itertools.count(1)


def dispatch_request(
    content: Table,
    experts: Sequence[Sequence[int]],
    *,
    weights: Sequence[Sequence[float]] | None = None,
    hidden: Any = None,
    sessions: Sequence[SequenceRows] | None = None,
    layer: int = 0,
    deadline_ms: int = 0,
    seed: int = 0,
    gate_sha256: str = "",
) -> DispatchRequest:
    """Make a request for the table's gate of a layer; (T, k) `experts`, equal weights by default.

    `hidden` is (T, H); random by default. The stable gate chose, or that of `gate_sha256`.
    """
    gate = next(gate for gate in content.gates if layer in gate.layers)
    index = np.array(experts, np.int32)
    tokens, k = index.shape
    if hidden is None:
        hidden = np.random.default_rng(seed).standard_normal((tokens, content.hidden_size))
    element = by_name(content.dtype)
    chosen = np.array(weights if weights is not None else np.full((tokens, k), 1 / k), np.float32)
    return DispatchRequest(
        request_id=next(_REQUEST_IDS),
        mixture=content.mixture,
        gate_sha256=gate_sha256 or gate.stable.sha256,
        layer=layer,
        dtype=element.wire,
        hidden_size=content.hidden_size,
        top_k=k,
        sequences=sessions or [SequenceRows(session="s", rows=tokens)],
        hidden=np.asarray(hidden).astype(element.numpy).tobytes(),
        expert_index=index.tobytes(),
        expert_weights=chosen.tobytes(),
        weights_dtype=by_numpy(chosen.dtype).wire,
        deadline_ms=deadline_ms,
    )


def rows_of(content: Table, response: RowsResponse) -> Any:
    """Return the rows of an answer (T, H); AssertionError with the reason where it failed."""
    assert not response.HasField("failure"), response.failure.message
    flat = np.frombuffer(response.hidden, by_name(content.dtype).numpy)
    return flat.reshape(-1, content.hidden_size)


class Caller:
    """One blocking Dispatch stream; answers come in the order asked."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._stub = RouterStub(self._channel)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def dispatch(self, *requests: DispatchRequest, timeout_s: float = 20.0) -> list[RowsResponse]:
        """Send these at once; return their answers in the same order."""
        stream: Iterator[RowsResponse] = self._stub.Dispatch(iter(requests), timeout=timeout_s)
        answers = {answer.request_id: answer for answer in stream if answer.request_id}
        return [answers[request.request_id] for request in requests]

    def route(self, request: RouteRequest, timeout_s: float = 20.0) -> RowsResponse:
        """Send a Route request; ask again for as long as the gate is being fetched."""
        until = time.monotonic() + timeout_s
        while True:
            stream: Iterator[RowsResponse] = self._stub.Route(iter([request]), timeout=timeout_s)
            (answer,) = [answer for answer in stream if answer.request_id]
            if "not here yet" not in answer.failure.message or time.monotonic() > until:
                return answer
            time.sleep(0.05)


class SteadyCaller:
    """Keeps `in_flight` copies of a request on their way in a thread, and keeps the answers.

    with SteadyCaller(router.address, request) as steady:
        steady.wait_for(100)
    """

    def __init__(self, address: str, request: DispatchRequest, in_flight: int = 8) -> None:
        self.answers: list[RowsResponse] = []
        self._channel = grpc.insecure_channel(address)
        self._request, self._room = request, threading.Semaphore(in_flight)
        self._ended = threading.Event()
        self._more = threading.Condition()
        self._error: grpc.RpcError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._channel.close()

    def end(self) -> None:
        """Send nothing more and wait for what is under way."""
        self._ended.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "some requests were never answered"

    def wait_for(self, count: int) -> None:
        """Wait for so many further answers; AssertionError where the stream ends before."""
        wanted = len(self.answers) + count
        with self._more:
            enough = self._more.wait_for(lambda: len(self.answers) >= wanted or self._error, 30)
        assert enough, f"{len(self.answers)} of {wanted} answers in 30 s"
        assert self._error is None, self._error

    @property
    def failures(self) -> list[str]:
        return [a.failure.message for a in self.answers if a.HasField("failure")]

    def _requests(self) -> Iterator[DispatchRequest]:
        while not self._ended.is_set():
            if self._room.acquire(timeout=0.1):
                request = DispatchRequest()
                request.CopyFrom(self._request)
                request.request_id = next(_REQUEST_IDS)
                yield request

    def _run(self) -> None:
        try:
            for answer in RouterStub(self._channel).Dispatch(self._requests()):
                if answer.request_id:
                    self._room.release()
                    with self._more:
                        self.answers.append(answer)
                        self._more.notify_all()
        except grpc.RpcError as error:
            with self._more:
                self._error = error
                self._more.notify_all()
