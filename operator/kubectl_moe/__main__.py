"""Runs `kubectl moe`: parses the command line, puts the parts together, ends with an exit code."""

from __future__ import annotations

import os
import shlex
import sys
import time
from argparse import Namespace
from contextlib import closing

from kubectl_moe import follow
from kubectl_moe.arguments import parser
from kubectl_moe.cluster import ALL, ApiCluster, ClusterError
from kubectl_moe.connection import NOWHERE, connect
from kubectl_moe.decide import Refused
from kubectl_moe.health import Exit
from kubectl_moe.names import UsageError
from kubectl_moe.past import Unknown
from kubectl_moe.session import Routers, Session, advises, coloured
from kubectl_moe.verbs import carry_out


def main() -> int:
    """Return the exit code."""
    if sys.argv[1:2] == ["__complete"]:
        from kubectl_moe.completer import complete  # what a shell asks for, which is not in help

        return complete(sys.argv[2:])
    args = parser().parse_args()
    try:
        with closing(_cluster(args)) as cluster:
            return carry_out(args, _session(args, cluster))
    except (ClusterError, Refused, Unknown, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return Exit.ERROR
    except KeyboardInterrupt:
        return Exit.HEALTHY if getattr(args, "watch", False) else Exit.ERROR
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.ERROR


def _cluster(args: Namespace) -> ApiCluster:
    """Return the cluster, or none that answers where the verb asks for nothing in it."""
    alone = args.verb == "completion" or (args.verb == "lint" and not args.server)
    if alone or getattr(args, "client", False):
        return ApiCluster(NOWHERE, ALL)
    namespace = args.namespace or None
    return connect(args.kubeconfig, args.context, namespace, args.request_timeout)


def _session(args: Namespace, cluster: ApiCluster) -> Session:
    flags = _flags(args)
    return Session(
        cluster,
        cluster.everywhere,
        lambda: _reach(args, cluster.namespace),
        sys.stdout,
        sys.stderr,
        follow.Clock(time.monotonic, time.sleep),
        colour=coloured(sys.stdout, os.environ),
        advises=advises(args),
        flags="".join(f" {flag}" for flag in map(shlex.quote, flags)),
    )


def _flags(args: Namespace) -> list[str]:
    """Return what another command needs to mean the same cluster and namespace."""
    named = ("namespace", "context", "kubeconfig")
    return [f"--{flag}={getattr(args, flag)}" for flag in named if getattr(args, flag)]


def _reach(args: Namespace, namespace: str) -> Routers:
    from kubectl_moe.forward import Forwards  # gRPC is for the verbs that ask routers

    flags = [flag for flag in _flags(args) if not flag.startswith("--namespace=")]
    return Forwards(["kubectl", *flags], namespace, args.request_timeout)


if __name__ == "__main__":
    sys.exit(main())
