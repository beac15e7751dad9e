"""What the operator is started with: flags, each with an environment variable; the flag wins."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from moe_operator.template import Settings


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

    @classmethod
    def read(cls, arguments: Sequence[str], environ: Mapping[str, str]) -> Self:
        """Read the command line. Ends the process with 2 and a sentence where it is wrong."""
        parser = _parser(environ)
        args = parser.parse_args(arguments)
        namespaces = args.namespace or _split(environ.get("MOE_NAMESPACES", ""))
        for flag, value in (("worker", args.worker_image), ("router", args.router_image)):
            if not value:
                variable = f"MOE_{flag.upper()}_IMAGE"
                parser.error(f"--{flag}-image is missing, and {variable} is not set")
        return cls(
            namespaces=tuple(sorted(set(namespaces))),
            settings=Settings(args.worker_image, args.router_image, args.evaluator_image),
            kubeconfig=args.kubeconfig,
            lease=args.lease,
            lease_namespace=args.lease_namespace,
            identity=environ.get("POD_NAME") or f"{os.uname().nodename}-{os.getpid()}",
            health_port=args.health_port,
            metrics_port=args.metrics_port,
            sweep_s=args.sweep_seconds,
            log_level=args.log_level,
        )


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m moe_operator", description="Runs mixtures of experts on Kubernetes."
    )
    add = parser.add_argument
    add("--namespace", action="append", metavar="NAME", help="serve only this one; repeatable")
    add("--worker-image", default=environ.get("MOE_WORKER_IMAGE", ""), metavar="IMAGE")
    add("--router-image", default=environ.get("MOE_ROUTER_IMAGE", ""), metavar="IMAGE")
    add(
        "--evaluator-image",
        default=environ.get("MOE_EVALUATOR_IMAGE", ""),
        metavar="IMAGE",
        help="what tries candidates on golden sets, for Mixtures that name none of their own",
    )
    add("--kubeconfig", default=environ.get("KUBECONFIG", ""), metavar="FILE")
    add(
        "--lease",
        default=environ.get("MOE_LEASE", "moeops-operator"),
        metavar="NAME",
        help="the Lease whose holder leads; an empty name for a single operator without one",
    )
    add(
        "--lease-namespace",
        default=environ.get("MOE_LEASE_NAMESPACE") or environ.get("POD_NAMESPACE", "default"),
        metavar="NAME",
    )
    port = environ.get("MOE_HEALTH_PORT", "8080")
    add("--health-port", type=_port, default=port, metavar="PORT", help="0 for none")
    port = environ.get("MOE_METRICS_PORT", "8081")
    add("--metrics-port", type=_port, default=port, metavar="PORT", help="GET /metrics; 0 for none")
    add("--sweep-seconds", type=float, default=180.0, metavar="S", help=argparse.SUPPRESS)
    levels = ("DEBUG", "INFO", "WARNING")
    add("--log-level", choices=levels, default=environ.get("MOE_LOG_LEVEL", "INFO"))
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"it is {text!r:.80}; it must be a port, or 0 for none")
    return int(text)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
