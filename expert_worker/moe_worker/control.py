"""The control port: moeops.v1.Worker and gRPC health checks. Translates, and holds no rule."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from moe_core.document import InvalidDocument
from moe_core.grpc_tls import Callers, server_credentials
from moe_core.tls import Folder
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


@dataclass(frozen=True, slots=True)
class Guard:
    """The control port has TLS, and only this name may call.

    Health checks are answered at `health` without: the kubelet's know no TLS.
    """

    certificate: Folder
    operator: str
    health: Address


class Control:
    """The gRPC server. Alive from its start; ready when told so."""

    def __init__(
        self, address: Address, servicer: WorkerServicer, guard: Guard | None = None
    ) -> None:
        self._health = health.HealthServicer()
        self._health.set("liveness", health_pb2.HealthCheckResponse.SERVING)
        self.set_ready(False)
        known: list[grpc.ServerInterceptor] = [] if guard is None else [Callers({guard.operator})]
        server = self._serving(known)
        worker_pb2_grpc.add_WorkerServicer_to_server(servicer, server)
        self._servers = [server]
        self.health: Address | None = None
        if guard is None:
            port = server.add_insecure_port(str(address))
        else:
            port = server.add_secure_port(str(address), server_credentials(guard.certificate))
            self._servers.append(self._serving([]))
            plain = self._servers[-1].add_insecure_port(str(guard.health))
            self.health = _with_port(guard.health, plain)
        self.address = _with_port(address, port)

    def _serving(self, interceptors: list[grpc.ServerInterceptor]) -> grpc.Server:
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="control")
        server = grpc.server(pool, options=_OPTIONS, interceptors=interceptors)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        return server

    def set_ready(self, ready: bool) -> None:
        status = health_pb2.HealthCheckResponse
        for name in _READINESS:
            self._health.set(name, status.SERVING if ready else status.NOT_SERVING)

    def start(self) -> None:
        for server in self._servers:
            server.start()

    def stop(self, grace_s: float) -> None:
        """Let calls under way end, for at most so long."""
        for stopped in [server.stop(grace_s) for server in self._servers]:
            stopped.wait()


def _with_port(address: Address, port: int) -> Address:
    return address if address.path else Address(address.host, port)
