"""Runs `kubectl moe`: parses the command line, puts the parts together, ends with an exit code."""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from contextlib import closing

from kubectl_moe import follow
from kubectl_moe.arguments import parser
from kubectl_moe.cluster import ClusterError
from kubectl_moe.connection import connect
from kubectl_moe.decide import Refused
from kubectl_moe.health import Exit
from kubectl_moe.names import UsageError
from kubectl_moe.past import Unknown
from kubectl_moe.session import Routers, Session
from kubectl_moe.verbs import VERBS


def main() -> int:
    """Return the exit code."""
    args = parser().parse_args()
    try:
        cluster = connect(args.kubeconfig, args.context, args.namespace, args.request_timeout)
        with closing(cluster):
            session = Session(
                cluster,
                lambda: _reach(args, cluster.namespace),
                sys.stdout,
                sys.stderr,
                follow.Clock(time.monotonic, time.sleep),
                sys.stdout.isatty() and not os.environ.get("NO_COLOR"),
            )
            return VERBS[args.verb](args, session)
    except (ClusterError, Refused, Unknown, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return Exit.ERROR
    except KeyboardInterrupt:
        return Exit.HEALTHY if getattr(args, "watch", False) else Exit.ERROR
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.ERROR


def _reach(args: Namespace, namespace: str) -> Routers:
    from kubectl_moe.forward import Forwards  # gRPC is for the one verb that asks routers

    named = {flag: getattr(args, flag) for flag in ("kubeconfig", "context")}
    flags = [f"--{flag}={value}" for flag, value in named.items() if value]
    return Forwards(["kubectl", *flags], namespace, args.request_timeout)


if __name__ == "__main__":
    sys.exit(main())
