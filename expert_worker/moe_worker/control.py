"""The control port: moeops.v1.Worker and gRPC health checks. Translates, and holds no rule."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from moe_core.document import InvalidDocument
from moe_worker.address import Address
from moe_worker.assignment import Assignment, from_proto
from moeops.v1 import worker_pb2_grpc
from moeops.v1.worker_pb2 import (
    AssignRequest,
    AssignResponse,
    DescribeWorkerRequest,
    DescribeWorkerResponse,
)

_THREADS = 4
_READINESS = ("", "readiness")
_OPTIONS = (("grpc.so_reuseport", 0),)


class WorkerServicer(worker_pb2_grpc.WorkerServicer):
    """Translates between the wire and the loader."""

    def __init__(
        self,
        assign: Callable[[Assignment], None],
        describe: Callable[[], DescribeWorkerResponse],
    ) -> None:
        self._assign = assign
        self._describe = describe

    def Assign(  # noqa: N802
        self, request: AssignRequest, context: grpc.ServicerContext
    ) -> AssignResponse:
        try:
            assignment = from_proto(request.experts)
        except InvalidDocument as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"experts: {error}")
        self._assign(assignment)
        return AssignResponse()

    def Describe(  # noqa: N802
        self, request: DescribeWorkerRequest, context: grpc.ServicerContext
    ) -> DescribeWorkerResponse:
        return self._describe()


class Control:
    """The gRPC server. Alive from its start; ready when told so."""

    def __init__(self, address: Address, servicer: WorkerServicer) -> None:
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="control")
        self._server = grpc.server(pool, options=_OPTIONS)
        self._health = health.HealthServicer()
        worker_pb2_grpc.add_WorkerServicer_to_server(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._health.set("liveness", health_pb2.HealthCheckResponse.SERVING)
        self.set_ready(False)
        port = self._server.add_insecure_port(str(address))
        self.address = address if address.path else Address(address.host, port)

    def set_ready(self, ready: bool) -> None:
        status = health_pb2.HealthCheckResponse
        for name in _READINESS:
            self._health.set(name, status.SERVING if ready else status.NOT_SERVING)

    def start(self) -> None:
        self._server.start()

    def stop(self, grace_s: float) -> None:
        """Let calls under way end, for at most so long."""
        self._server.stop(grace_s).wait()
