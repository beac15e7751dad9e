"""What the operator is started with: flags, each with an environment variable; the flag wins."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from moe_core.log import Form, read_form
from moe_operator.template import Settings
from moe_operator.tls import TlsMode

_LEVELS: Final = ("DEBUG", "INFO", "WARNING")
_OUTSIDE: Final = "how to reach the API server from outside its cluster"
_IMAGES: Final[Mapping[str, str]] = {
    "worker": "of worker pods, for Mixtures that name none of their own [{}; required]",
    "router": "of router pods, for Mixtures that name none of their own [{}; required]",
    "evaluator": "what tries candidates on golden sets, for Mixtures that name none of their own "
    "[{}]",
}


@dataclass(frozen=True, slots=True)
class Options:
    """Read once, never changed."""

    namespaces: tuple[str, ...]
    settings: Settings
    kubeconfig: str
    lease: str
    lease_namespace: str
    identity: str
    health_port: int
    metrics_port: int
    sweep_s: float
    log_level: str
    log_format: Form
    authority: str = ""  # name of the Secret with the authority of certificates
    authority_from: str = ""  # name of the Secret that it comes from, if people give it

    @classmethod
    def read(cls, arguments: Sequence[str], environ: Mapping[str, str]) -> Self:
        """Read the command line. Ends the process with 2 and a sentence where it is wrong."""
        read = parser(environ)
        args = read.parse_args(arguments)
        namespaces = args.namespace or _split(environ.get("MOE_NAMESPACES", ""))
        for flag, value in (("worker", args.worker_image), ("router", args.router_image)):
            if not value:
                variable = f"MOE_{flag.upper()}_IMAGE"
                read.error(f"--{flag}-image is missing, and {variable} is not set")
        return cls(
            namespaces=tuple(sorted(set(namespaces))),
            settings=Settings(
                args.worker_image,
                args.router_image,
                args.evaluator_image,
                environ.get("POD_NAMESPACE", ""),
                args.tls,
                f"{args.lease or 'moeops-operator'}.{args.lease_namespace}.svc",
            ),
            kubeconfig=args.kubeconfig,
            lease=args.lease,
            lease_namespace=args.lease_namespace,
            identity=environ.get("POD_NAME") or f"{os.uname().nodename}-{os.getpid()}",
            health_port=args.health_port,
            metrics_port=args.metrics_port,
            sweep_s=args.sweep_seconds,
            log_level=args.log_level,
            log_format=args.log_format,
            authority=args.tls_authority,
            authority_from=args.tls_authority_from,
        )


def parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """Return what reads the flags; the help of each ends with [VARIABLE; default X]."""
    made = argparse.ArgumentParser(
        prog="python -m moe_operator",
        description="Runs mixtures of experts on Kubernetes. POD_NAME is its name in the Lease.",
    )
    _add_flags(made.add_argument, environ)
    return made


def _add_flags(add: Callable[..., argparse.Action], environ: Mapping[str, str]) -> None:
    namespace = "serve only this one; repeatable, with commas in the variable [MOE_NAMESPACES]"
    add("--namespace", action="append", metavar="NAME", help=namespace)
    for program, use in _IMAGES.items():
        variable = f"MOE_{program.upper()}_IMAGE"
        given = environ.get(variable, "")
        add(f"--{program}-image", default=given, metavar="IMAGE", help=use.format(variable))
    given = environ.get("KUBECONFIG", "")
    add("--kubeconfig", default=given, metavar="FILE", help=f"{_OUTSIDE} [KUBECONFIG]")
    add(
        "--lease",
        default=environ.get("MOE_LEASE", "moeops-operator"),
        metavar="NAME",
        help="the Lease whose holder leads; an empty name for a single operator without one "
        "[MOE_LEASE; default moeops-operator]",
    )
    add(
        "--lease-namespace",
        default=environ.get("MOE_LEASE_NAMESPACE") or environ.get("POD_NAMESPACE", "default"),
        metavar="NAME",
        help="where the Lease is; POD_NAMESPACE, where that is set "
        "[MOE_LEASE_NAMESPACE; default default]",
    )
    _add_ports(add, environ)
    add("--sweep-seconds", type=float, default=180.0, metavar="S", help=argparse.SUPPRESS)
    level = environ.get("MOE_LOG_LEVEL", "INFO")
    said = f"one of {', '.join(_LEVELS)} [MOE_LOG_LEVEL; default INFO]"
    add("--log-level", choices=_LEVELS, default=level, help=said)
    form = environ.get("MOE_LOG_FORMAT", Form.TEXT.value)
    said = "of lines on stderr: text or json [MOE_LOG_FORMAT; default text]"
    add("--log-format", type=_form, default=form, metavar="NAME", help=said)
    _add_tls(add, environ)


def _add_ports(add: Callable[..., argparse.Action], environ: Mapping[str, str]) -> None:
    for name, usual, use in (
        ("health", "8080", "where GET /healthz and /readyz are answered"),
        ("metrics", "8081", "where GET /metrics is answered"),
    ):
        variable = f"MOE_{name.upper()}_PORT"
        said = f"{use}; 0 for none [{variable}; default {usual}]"
        port = environ.get(variable, usual)
        add(f"--{name}-port", type=_port, default=port, metavar="PORT", help=said)


def _add_tls(add: Callable[..., argparse.Action], environ: Mapping[str, str]) -> None:
    add(
        "--tls",
        type=_tls,
        default=environ.get("MOE_TLS_MODE", TlsMode.DISABLED.value),
        metavar="MODE",
        help="Disabled; Permitted: links have it, clients may; Required: clients must, too "
        "[MOE_TLS_MODE; default Disabled]",
    )
    add(
        "--tls-authority",
        default=environ.get("MOE_TLS_AUTHORITY", "moeops-operator-ca"),
        metavar="NAME",
        help="the Secret in --lease-namespace with the authority that vouches for programs "
        "[MOE_TLS_AUTHORITY; default moeops-operator-ca]",
    )
    add(
        "--tls-authority-from",
        default=environ.get("MOE_TLS_AUTHORITY_FROM", ""),
        metavar="NAME",
        help="a Secret in --lease-namespace with tls.crt and tls.key of an authority of yours, "
        "which is followed when it changes [MOE_TLS_AUTHORITY_FROM; default none: it makes one]",
    )


def _form(text: str) -> Form:
    try:
        return read_form(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"it is {text!r:.80}; {error}") from None


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"it is {text!r:.80}; it must be a port, or 0 for none")
    return int(text)


def _tls(text: str) -> TlsMode:
    try:
        return TlsMode(text)
    except ValueError:
        right = " or ".join(TlsMode)
        raise argparse.ArgumentTypeError(f"it is {text!r:.80}; it must be {right}") from None


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
