"""Lets the stand-ins of router pods answer `Describe` over gRPC, for operators that are processes.

Each pod has an address of its own on loopback, and routers listen there on their real port.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import grpc

from moe_operator.kinds import labels_of
from moe_operator.reports import Unanswered
from moe_operator.router_report import Loading, RouterReport
from moe_operator.template import ROUTER_PORT
from moeops.v1 import router_pb2
from tests.operator.kube.nodes import Nodes

Context = grpc.aio.ServicerContext[router_pb2.DescribeRequest, router_pb2.DescribeResponse]


@dataclass(frozen=True, slots=True)
class Speaker:
    """One router pod."""

    nodes: Nodes
    address: str

    async def describe(
        self, request: router_pb2.DescribeRequest, context: Context
    ) -> router_pb2.DescribeResponse:
        try:
            return response(await self.nodes.router(self.address, tuple(request.sha256), ()))
        except Unanswered:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the pod is gone")
            raise

    async def listen(self) -> grpc.aio.Server:
        """Answer at the pod's address, on the port of routers."""
        handler = grpc.unary_unary_rpc_method_handler(
            self.describe,
            router_pb2.DescribeRequest.FromString,
            router_pb2.DescribeResponse.SerializeToString,
        )
        service = grpc.method_handlers_generic_handler("moeops.v1.Router", {"Describe": handler})
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((service,))
        server.add_insecure_port(f"{self.address}:{ROUTER_PORT}")
        await server.start()
        return server


def response(report: RouterReport) -> router_pb2.DescribeResponse:
    """Return what a router says, as it is on the wire; `router_report` is the inverse."""
    offers: dict[str, list[str]] = {}
    for sha256, workers in report.workers.items():
        for worker in workers:
            offers.setdefault(worker, []).append(sha256)
    return router_pb2.DescribeResponse(
        router=report.pod,
        incarnation=report.incarnation,
        table_uid=report.table_uid,
        epoch=report.epoch,
        latency_bounds_us=report.latency_bounds_us,
        links=[
            router_pb2.LinkState(worker=worker, state=router_pb2.LinkState.LIVE, sha256=digests)
            for worker, digests in offers.items()
        ],
        versions=[
            router_pb2.VersionCounters(
                sha256=sha256,
                requests=counters.requests,
                rows=counters.rows,
                nonfinite_rows=counters.nonfinite_rows,
                latency_counts=counters.latency_counts,
            )
            for sha256, counters in report.versions.items()
        ],
        gates=[
            router_pb2.GateState(sha256=sha256, state=_STATES[loading.state])
            for sha256, loading in report.gates.items()
        ],
    )


_STATES: Final = {
    Loading.LOADED: router_pb2.GateState.LOADED,
    Loading.FETCHING: router_pb2.GateState.FETCHING,
    Loading.REFUSED: router_pb2.GateState.REFUSED,
}


@contextlib.asynccontextmanager
async def speaking(nodes: Nodes) -> AsyncIterator[None]:
    """Listen for every router pod there is, for as long as this lasts."""
    servers: dict[str, grpc.aio.Server] = {}

    async def follow() -> None:
        while True:
            routers = {
                pod["status"]["podIP"]
                for pod in nodes.pods
                if labels_of(pod).get("moeops.dev/component") == "router" and pod.get("status")
            }
            for address in routers - servers.keys():
                servers[address] = await Speaker(nodes, address).listen()
            await asyncio.sleep(0.1)

    following = asyncio.create_task(follow())
    try:
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        for server in servers.values():
            await server.stop(None)
