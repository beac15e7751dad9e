"""The router's settings, from flags and the environment (a flag wins), read once at the start."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from moe_core.document import InvalidDocument
from moe_core.log import Form, read_form
from moe_core.metrics_settings import Detail, read_address, read_detail
from moe_core.tenants import Tenant, from_json
from moe_core.tracing_settings import BadTracing, Tracing, read_tracing

T = TypeVar("T")

_ABOUT = "Routes the tokens of one mixture to the workers that hold its experts."
_EPILOG = "Every flag has an environment variable, named in brackets; the flag wins."


class BadSetting(ValueError):
    """A flag or variable is missing or wrong; the message names it, its value and what is right."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a router was started with. `table_file` None and `workers` None: ask the API server."""

    mixture: str
    namespace: str
    listen: str
    table_file: Path | None
    workers: tuple[str, ...] | None
    cache: Path | None
    name: str
    node: str
    kubeconfig: str | None
    drain_s: float
    max_rows: int
    deadline_s: float
    metrics: tuple[str, int] | None
    metrics_detail: Detail
    tracing: Tracing | None
    log_format: Form
    tls: Path | None = None
    listen_tls: str = ""
    operator: str = ""
    health: str = ""
    rows_at_work: int = 16_384
    tenants: tuple[Tenant, ...] = ()
    tenants_folder: Path = Path()


# flag, variable, default, help
_FLAGS = (
    ("mixture", "MOE_MIXTURE", None, "name of the mixture to serve"),
    ("namespace", "POD_NAMESPACE", "default", "its namespace"),
    ("listen", "MOE_LISTEN", "0.0.0.0:7000", "where clients connect: HOST:PORT or unix:PATH"),
    ("table-file", "MOE_TABLE_FILE", "", "a RoutingTable in JSON or YAML, read when it changes; "
     "without it the object is watched"),
    ("workers", "MOE_WORKERS", "", "link addresses of workers, with commas between, tls:HOST:PORT "
     "where they have TLS; without it the EndpointSlices of MIXTURE-workers are watched"),
    ("cache", "MOE_CACHE", "", "where the last table and gate artifacts are kept"),
    ("name", "POD_NAME", "", "this router's name; default: that of the host"),
    ("node", "NODE_NAME", "", "its node"),
    ("kubeconfig", "KUBECONFIG", "", "how to reach the API server from outside its cluster"),
    ("drain-seconds", "MOE_DRAIN_SECONDS", "1", "how long requests are taken after SIGTERM, while "
     "clients learn of it"),
    ("max-rows", "MOE_MAX_ROWS", "65536", "rows under way at once; more are refused"),
    ("rows-at-work", "MOE_ROWS_AT_WORK", "16384", "rows that workers are asked for at once; more "
     "wait for their turn, in a fair order"),
    ("tenants", "MOE_TENANTS", "", "who may ask, as spec.tenants of a Mixture in JSON; without it "
     "everybody"),
    ("tenants-folder", "MOE_TENANTS_FOLDER", "/etc/moeops/tenants", "with --tenants: a file for "
     "each, with the sha256 of a token on each line, read again when it changes"),
    ("deadline-seconds", "MOE_DEADLINE_SECONDS", "5", "for requests that give none"),
    ("metrics", "MOE_METRICS", "0.0.0.0:7002", "where GET /metrics is answered: HOST:PORT, or "
     "none"),
    ("log-format", "MOE_LOG_FORMAT", "text", "of lines on stderr: text or json"),
    ("metrics-detail", "MOE_METRICS_DETAIL", "Rollup", "Rollup, or Full for each expert of each "
     "layer"),
    ("tls", "MOE_TLS", "", "folder with tls.crt, tls.key and ca.crt, read again when they change: "
     "proves to workers who this is, and serves --listen-tls"),
    ("listen-tls", "MOE_LISTEN_TLS", "0.0.0.0:7443", "with --tls: where clients connect that prove "
     "who they are: HOST:PORT or unix:PATH"),
    ("operator", "MOE_TLS_OPERATOR", "moeops-operator.moeops-system.svc", "with --tls: the DNS "
     "name in the operator's certificate"),
    ("health", "MOE_HEALTH", "0.0.0.0:7003", "with --tls: where health checks are answered "
     "without TLS, whatever --listen is"),
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Return what reads the flags; the help of each ends with [VARIABLE; default X]."""
    made = argparse.ArgumentParser("python -m moe_router", description=_ABOUT, epilog=_EPILOG)
    for flag, variable, default, text in _FLAGS:
        shown = "; required" if default is None else ""
        shown = f"; default {default}" if default else shown
        made.add_argument(f"--{flag}", metavar="VALUE", help=f"{text} [{variable}{shown}]")
    return made


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Read the settings. Raises BadSetting; `--help` ends the program as argparse does."""
    given = vars(parser().parse_args(arguments))

    def value(flag: str) -> str:
        _, variable, default, _ = next(row for row in _FLAGS if row[0] == flag)
        found = given[flag.replace("-", "_")] or environment.get(variable) or default
        if found is None:
            raise BadSetting(f"--{flag} ({variable}) is missing; it is required")
        return str(found)

    table_file, workers, cache = value("table-file"), value("workers"), value("cache")
    tls = value("tls")
    return Settings(
        mixture=value("mixture"),
        namespace=value("namespace"),
        listen=_address("--listen", value("listen")),
        table_file=Path(table_file) if table_file else None,
        workers=_addresses(workers) if workers else None,
        cache=Path(cache) if cache else None,
        name=value("name") or socket.gethostname(),
        node=value("node"),
        kubeconfig=value("kubeconfig") or None,
        drain_s=_number("--drain-seconds", value("drain-seconds"), 0, 600),
        max_rows=int(_number("--max-rows", value("max-rows"), 1, 1 << 30)),
        deadline_s=_number("--deadline-seconds", value("deadline-seconds"), 0.01, 600),
        metrics=_read("--metrics", value("metrics"), read_address),
        metrics_detail=_read("--metrics-detail", value("metrics-detail"), read_detail),
        tracing=_tracing(environment),
        log_format=_read("--log-format", value("log-format"), read_form),
        tls=Path(tls) if tls else None,
        listen_tls=_address("--listen-tls", value("listen-tls")),
        operator=value("operator"),
        rows_at_work=int(_number("--rows-at-work", value("rows-at-work"), 1, 1 << 30)),
        tenants=_tenants(value("tenants")),
        tenants_folder=Path(value("tenants-folder")),
        health=_address("--health", value("health")),
    )


def _tenants(text: str) -> tuple[Tenant, ...]:
    try:
        return from_json(text) if text else ()
    except InvalidDocument as error:
        raise BadSetting(f"--tenants (MOE_TENANTS): {error}") from None


def _tracing(environment: Mapping[str, str]) -> Tracing | None:
    try:
        return read_tracing(environment)
    except BadTracing as error:
        raise BadSetting(str(error)) from None


def _read(name: str, text: str, read: Callable[[str], T]) -> T:
    try:
        return read(text)
    except ValueError as error:
        raise BadSetting(f"{name} is {text!r}; {error}") from None


def _number(name: str, text: str, low: float, high: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not low <= number <= high:
        raise BadSetting(f"{name} is {text!r}; it must be a number from {low} to {high}")
    return number


def _addresses(text: str) -> tuple[str, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(_worker(part) for part in parts)


def _worker(text: str) -> str:
    """Return a link address, which may say that the link has TLS."""
    _address("--workers", text.removeprefix("tls:"))
    return text


def _address(name: str, text: str) -> str:
    kind, _, path = text.partition(":")
    if kind == "unix" and path:
        return text
    host, _, port = text.rpartition(":")
    if host and port.isdigit() and int(port) < 65536:
        return text
    raise BadSetting(f"{name} is {text!r}; it must be HOST:PORT or unix:PATH")
