"""Asks routers what they counted, each through a `kubectl port-forward` of its own.

Routers speak gRPC, which the API server's proxies do not carry, and are open to nobody outside;
a port-forward is what `kubectl` has for that. It logs in as the person does, in every way that a
kubeconfig may name. Forwards are kept for as long as one looks, and made anew where they broke.
"""

from __future__ import annotations

import contextlib
import re
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Final

import grpc

from kubectl_moe.cluster import ClusterError
from kubectl_moe.gate_loads import Load, Of, Reading
from moe_core.worker_load import WorkerLoad
from moeops.v1.router_pb2 import (
    DescribeRequest,
    DescribeResponse,
    GateContext,
    GateLayer,
    LinkState,
    ShadowLayer,
)
from moeops.v1.router_pb2_grpc import RouterStub

ROUTER_PORT: Final = 7000
_SPEAKING: Final = (LinkState.LIVE, LinkState.DRAINING)
_FORWARDING: Final = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")
_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 << 20),
)


@dataclass(slots=True)
class _Forward:
    """One running `kubectl port-forward`; `channel` once it listens."""

    process: subprocess.Popen[str]
    complaints: IO[bytes]
    channel: grpc.Channel | None = None

    def listen(self, until_s: float) -> grpc.Channel:
        """Wait until it forwards. Raises ClusterError with what kubectl complained about."""
        if self.channel is None:
            assert self.process.stdout is not None
            left = max(until_s - time.monotonic(), 0)
            ready, _, _ = select.select([self.process.stdout], [], [], left)
            line = self.process.stdout.readline() if ready else ""
            found = _FORWARDING.search(line)
            if found is None:
                raise ClusterError(self._complaint(silent=not ready))
            self.channel = grpc.insecure_channel(f"127.0.0.1:{found[1]}", _OPTIONS)
        return self.channel

    def close(self) -> None:
        if self.channel is not None:
            self.channel.close()
        self.process.kill()
        self.process.communicate()
        self.complaints.close()

    def _complaint(self, *, silent: bool) -> str:
        if silent:
            return "kubectl port-forward does not get through in time"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        self.complaints.seek(0)
        return self.complaints.read().decode(errors="replace").strip() or "kubectl said nothing"


class Forwards:
    """Routers of one namespace. `kubectl` is the command that forwards, with its own flags."""

    def __init__(self, kubectl: Sequence[str], namespace: str, timeout_s: float) -> None:
        self._command = (*kubectl, "-n", namespace, "port-forward", "--address=127.0.0.1")
        self._timeout_s = timeout_s
        self._open: dict[str, _Forward] = {}

    def read(
        self, pods: Sequence[str], digests: Sequence[str], *, grouped: bool = False
    ) -> tuple[tuple[Reading, ...], tuple[str, ...]]:
        """Return the readings of these router pods, and which gave none, and why."""
        for gone in self._open.keys() - set(pods):
            self._close(gone)
        for pod in pods:
            self._start(pod)
        request = DescribeRequest(sha256=digests, session_groups=grouped)
        until, readings, silent = time.monotonic() + self._timeout_s, [], []
        for pod in pods:
            try:
                readings.append(self._ask(pod, request, until))
            except ClusterError as error:
                silent.append(f"router {pod}: {error}")
                self._close(pod)
        return tuple(readings), tuple(silent)

    def close(self) -> None:
        for pod in list(self._open):
            self._close(pod)

    def _ask(self, pod: str, request: DescribeRequest, until_s: float) -> Reading:
        channel = self._open[pod].listen(until_s)
        left = max(until_s - time.monotonic(), 0.1)
        try:
            said = RouterStub(channel).Describe(request, timeout=left)
        except grpc.RpcError as error:
            raise ClusterError(f"{error.code().name}: {error.details()}") from error
        return to_reading(pod, said, time.monotonic())

    def _start(self, pod: str) -> None:
        """Begin to forward, unless that is done already."""
        known = self._open.get(pod)
        if known is not None:
            if known.process.poll() is None:
                return
            self._close(pod)
        complaints = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the forward
        try:
            process = subprocess.Popen(
                [*self._command, f"pod/{pod}", f":{ROUTER_PORT}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
            )
        except OSError as error:
            complaints.close()
            raise ClusterError(f"kubectl cannot be run: {error}") from error
        self._open[pod] = _Forward(process, complaints)

    def _close(self, pod: str) -> None:
        self._open.pop(pod).close()


def to_reading(pod: str, said: DescribeResponse, at: float) -> Reading:
    """Return what a router said of its gates, and of the workers whose links speak."""
    loads = {
        Of(gate.gate, gate.sha256, layer.layer): _load(layer)
        for gate in said.gate_counters
        for layer in gate.layers
    }
    loads |= {
        Of(gate.gate, gate.sha256, layer.layer, context=one.context): _of_context(one, layer)
        for gate in said.gate_counters
        for layer in gate.layers
        for one in layer.contexts
    }
    for shadow in said.gate_shadows:
        for layer in shadow.layers:
            of = Of(shadow.gate, shadow.sha256, layer.layer, shadow=True)
            loads[of] = _shadow(layer)
    workers = {link.worker: _heard(link) for link in said.links if link.state in _SPEAKING}
    return Reading(pod, said.incarnation, loads, workers, at)


def _heard(link: LinkState) -> WorkerLoad:
    return WorkerLoad(
        incarnation=link.incarnation,
        queued_rows=link.queued_rows,
        busy_us=link.busy_us,
        rows=link.computed_rows,
        queued_attempts=link.queued_attempts,
        queue_us=link.queue_us,
    )


def _load(layer: GateLayer) -> Load:
    pairs, groups = tuple(layer.pairs), tuple(layer.group_pairs)
    scored = layer.scored_rows, layer.entropy_sum
    return Load(layer.rows, pairs, layer.overflow_pairs, *scored, groups)


def _of_context(one: GateContext, layer: GateLayer) -> Load:
    groups, experts = tuple(one.group_pairs), len(layer.pairs)
    pairs = tuple(sum(groups[expert::experts]) for expert in range(experts))
    return Load(one.rows, pairs, groups=groups)


def _shadow(layer: ShadowLayer) -> Load:
    """Return what a candidate chose for rows that were not its own; all of them it scored."""
    pairs = tuple(layer.pairs)
    return Load(layer.rows, pairs, layer.overflow_pairs, layer.rows, layer.entropy_sum)
