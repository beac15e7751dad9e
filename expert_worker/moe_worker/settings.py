"""Reads flags and environment into one frozen `Settings`; nothing else looks at either.

A flag wins over its variable. Whatever is malformed ends the program before it has done anything,
with a sentence that names the flag or variable, the value and what would be right.
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from moe_core import identity
from moe_core.dtypes import ELEMENT_TYPES, ElementType, by_name
from moe_core.log import Form, read_form
from moe_core.metrics_settings import Detail, read_address, read_detail
from moe_core.tracing_settings import Tracing, read_tracing
from moe_worker.address import Address
from moe_worker.assignment import Assignment, from_json

NUMERICS: Final = ("Exact", "Fast")
DEVICES: Final = ("auto", "cpu", "cuda")
_MAX_HIDDEN: Final = 1 << 16
_MAX_ROWS: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a worker is told at its start.

    At most `batch_rows` rows are computed at once, and `queue_rows` wait. Draining takes at most
    `drain_s`, links that stay busy or not.
    """

    assignment: Assignment
    hidden_size: int
    dtype: ElementType
    exact: bool
    link: Address
    control: Address
    cache: Path
    name: str
    node: str
    batch_rows: int
    queue_rows: int
    drain_s: float
    mixture: str
    metrics: tuple[str, int] | None
    metrics_detail: Detail
    tracing: Tracing | None = None
    log_format: Form = Form.TEXT
    device: str = "auto"
    namespace: str = "default"
    tls: Path | None = None
    operator: str = ""
    health: Address = field(default_factory=lambda: Address("0.0.0.0", 7103))

    @property
    def routers(self) -> str:
        """The name in the certificate of who may open links."""
        return identity.routers(self.mixture, self.namespace)


@dataclass(frozen=True, slots=True)
class _Flag:
    flag: str
    variable: str
    default: str | None
    metavar: str
    read: Callable[[str], Any]
    text: str


def _integer(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError(f"it must be a whole number from {low} to {high}")
        return int(text)

    return read


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 3600:
        raise ValueError("it must be seconds from 0 to 3600")
    return value


def _numerics(text: str) -> bool:
    if text not in NUMERICS:
        raise ValueError(f"it must be one of {', '.join(NUMERICS)}")
    return text == "Exact"


def _device(text: str) -> str:
    if text not in DEVICES:
        raise ValueError(f"it must be one of {', '.join(DEVICES)}")
    return text


def _folder(text: str) -> Path | None:
    return _cache(text) if text else None


def _cache(text: str) -> Path:
    if not text.startswith("/"):
        raise ValueError("it must be an absolute path")
    return Path(text)


_DTYPES = ", ".join(element.name for element in ELEMENT_TYPES)
_FLAGS: Final = (
    _Flag("assignment", "MOE_ASSIGNMENT", "[]", "JSON", from_json,
          'experts to hold: a list of {"expertId", "version", "uri", "sha256", "layers"}'),
    _Flag("hidden-size", "MOE_HIDDEN_SIZE", None, "N", _integer(1, _MAX_HIDDEN),
          "width of the hidden states"),
    _Flag("dtype", "MOE_DTYPE", "BFloat16", "NAME", by_name, f"one of {_DTYPES}"),
    _Flag("numerics", "MOE_NUMERICS", "Exact", "NAME", _numerics,
          "Exact: a row's answer never depends on its batch; Fast: whatever is fastest"),
    _Flag("device", "MOE_DEVICE", "auto", "NAME", _device,
          "what experts compute on: cpu, cuda (it must be there), or auto: a GPU if there is one"),
    _Flag("link", "MOE_LINK", "0.0.0.0:7100", "ADDR", Address.parse,
          "where routers connect: host:port or unix:/path"),
    _Flag("control", "MOE_CONTROL", "0.0.0.0:7101", "ADDR", Address.parse,
          "gRPC: moeops.v1.Worker and grpc.health.v1"),
    _Flag("cache", "MOE_CACHE", "/var/cache/moeops", "DIR", _cache, "where downloads are kept"),
    _Flag("name", "POD_NAME", "", "NAME", str, "the worker's name (default: the host's)"),
    _Flag("node", "NODE_NAME", "", "NAME", str, "the node that it is on"),
    _Flag("batch-rows", "MOE_BATCH_ROWS", "256", "N", _integer(1, _MAX_ROWS),
          "rows computed at once, at most"),
    _Flag("queue-rows", "MOE_QUEUE_ROWS", "32768", "N", _integer(1, _MAX_ROWS),
          "rows that may wait, at most; past it RESOURCE_EXHAUSTED"),
    _Flag("drain-seconds", "MOE_DRAIN_SECONDS", "25", "S", _seconds,
          "longest drain after SIGTERM"),
    _Flag("mixture", "MOE_MIXTURE", "", "NAME", str, "the mixture's name, which metrics tell"),
    _Flag("metrics", "MOE_METRICS", "0.0.0.0:7102", "ADDR", read_address,
          "where GET /metrics is answered: host:port, or none"),
    _Flag("log-format", "MOE_LOG_FORMAT", "text", "NAME", read_form,
          "of lines on stderr: text or json"),
    _Flag("metrics-detail", "MOE_METRICS_DETAIL", "Rollup", "NAME", read_detail,
          "Rollup, or Full for each layer of each expert"),
    _Flag("namespace", "POD_NAMESPACE", "default", "NAME", str, "the mixture's namespace"),
    _Flag("tls", "MOE_TLS", "", "DIR", _folder,
          "tls.crt, tls.key and ca.crt: links and control have TLS, and only the mixture's routers "
          "and the operator may come; read again when they change"),
    _Flag("operator", "MOE_TLS_OPERATOR", "moeops-operator.moeops-system.svc", "NAME", str,
          "with --tls: the DNS name in the certificate of who may use the control port"),
    _Flag("health", "MOE_HEALTH", "0.0.0.0:7103", "ADDR", Address.parse,
          "with --tls: where health checks are answered without TLS"),
)  # fmt: skip


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Return the settings. Ends the program with 2 and a sentence on stderr if they are wrong."""
    read = parser()
    given = vars(read.parse_args(arguments))
    values: dict[str, Any] = {}
    for flag in _FLAGS:
        name = flag.flag.replace("-", "_")
        try:
            values[name] = _read(flag, given[name], environment)
        except ValueError as error:
            read.error(str(error))
    try:
        tracing = read_tracing(environment)
    except ValueError as error:
        read.error(str(error))
    return Settings(
        assignment=values["assignment"],
        hidden_size=values["hidden_size"],
        dtype=values["dtype"],
        exact=values["numerics"],
        link=values["link"],
        control=values["control"],
        cache=values["cache"],
        name=values["name"] or socket.gethostname(),
        node=values["node"],
        batch_rows=values["batch_rows"],
        queue_rows=values["queue_rows"],
        drain_s=values["drain_seconds"],
        mixture=values["mixture"],
        metrics=values["metrics"],
        metrics_detail=values["metrics_detail"],
        tracing=tracing,
        log_format=values["log_format"],
        device=values["device"],
        namespace=values["namespace"],
        tls=values["tls"],
        operator=values["operator"],
        health=values["health"],
    )


def _read(flag: _Flag, given: str | None, environment: Mapping[str, str]) -> Any:
    """Return a flag's value; ValueError with the sentence to say where it is wrong."""
    where, text = f"--{flag.flag}", given
    if text is None and flag.variable in environment:
        where, text = flag.variable, environment[flag.variable]
    text = flag.default if text is None else text
    if text is None:
        raise ValueError(f"--{flag.flag} (or {flag.variable}) is missing; it is {flag.text}")
    try:
        return flag.read(text)
    except ValueError as error:
        raise ValueError(f"{where} is {text!r:.80}: {error}") from None


def parser() -> argparse.ArgumentParser:
    """Return what reads the flags; the help of each ends with [VARIABLE; default X]."""
    made = argparse.ArgumentParser(
        prog="python -m moe_worker",
        description="Serves experts of a mixture to routers. Every flag has a variable.",
        allow_abbrev=False,
    )
    for flag in _FLAGS:
        default = "; required" if flag.default is None else ""
        default = f"; default {flag.default}" if flag.default else default
        text = f"{flag.text} [{flag.variable}{default}]".replace("%", "%%")
        made.add_argument(f"--{flag.flag}", metavar=flag.metavar, help=text)
    return made
