"""Asks the routers what they served, at the edge where clients reach them."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from moeops.v1.router_pb2 import DescribeRequest, DescribeResponse, VersionCounters
from moeops.v1.router_pb2_grpc import RouterStub


def counters(addresses: Sequence[str], sha256: str) -> list[VersionCounters]:
    """Return what each router counted of one artifact; routers that know nothing of it left out."""
    found = []
    for address in addresses:
        with grpc.insecure_channel(address) as channel:
            answer = RouterStub(channel).Describe(DescribeRequest(sha256=[sha256]), timeout=10)
        found += [version for version in answer.versions if version.sha256 == sha256]
    return found


def seen(address: str) -> DescribeResponse | None:
    """Return what the router there says of itself; None while nobody answers."""
    with grpc.insecure_channel(address) as channel:
        try:
            answer: DescribeResponse = RouterStub(channel).Describe(DescribeRequest(), timeout=2)
        except grpc.RpcError:
            return None
    return answer
