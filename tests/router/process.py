"""Starts real routers, each a process of its own, for tests of any part.

    with spawn(mixture="tiny", table_file=str(file), workers=worker.link) as router:
        connect_to(router.address)

The port is a free one; the process is gone after the block. `options` are the router's flags.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import grpc

from moeops.v1.router_pb2 import DescribeRequest, DescribeResponse
from moeops.v1.router_pb2_grpc import RouterStub
from tests.support.program import START_S, Program, flags, running


class RouterProcess(Program):
    """A running router; `address` is where clients connect."""

    LISTENING = re.compile(r"event=listening address=(\S+) port=(\d+)")

    @property
    def address(self) -> str:
        address, port = self.told
        host = address.rpartition(":")[0]
        return address if host == "unix" else f"{host}:{port}"

    def describe(self) -> DescribeResponse:
        with grpc.insecure_channel(self.address) as channel:
            response: DescribeResponse = RouterStub(channel).Describe(
                DescribeRequest(), wait_for_ready=True, timeout=10
            )
            return response

    def wait_until_routable(
        self, sha256: Collection[str], *, workers: int = 1, timeout_s: float = START_S
    ) -> None:
        """Wait for a table, and until `workers` live links offer each of these artifacts."""
        until = time.monotonic() + timeout_s
        while True:
            seen = self.describe()
            offers = [digest for link in seen.links for digest in link.sha256]
            if seen.epoch and all(offers.count(digest) >= workers for digest in sha256):
                return
            assert time.monotonic() < until, f"not routable: {seen}\n{self.log}"
            time.sleep(0.02)

    def wait_for_epoch(self, epoch: int, timeout_s: float = START_S) -> None:
        until = time.monotonic() + timeout_s
        while self.describe().epoch < epoch:
            assert time.monotonic() < until, f"never saw epoch {epoch}\n{self.log}"
            time.sleep(0.02)


@contextmanager
def spawn(variables: Mapping[str, str] | None = None, /, **options: str) -> Iterator[RouterProcess]:
    """Start a router with these flags (`table_file="…"` is `--table-file`); it listens then."""
    arguments = [
        "moe_router",
        *flags({"listen": "127.0.0.1:0", "metrics": "127.0.0.1:0", **options}),
    ]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    around = {**os.environ, **threads, **(variables or {})}
    with running(RouterProcess, arguments, around) as router:
        yield router
