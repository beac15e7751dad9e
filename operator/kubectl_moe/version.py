"""`kubectl moe version`: of this command, and of the operators in the cluster."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from importlib.metadata import version as installed
from typing import Any, Final

from kubectl_moe.advice import Step
from kubectl_moe.cluster import Body, ClusterError
from kubectl_moe.health import Exit
from kubectl_moe.names import API_VERSION
from kubectl_moe.session import Session

_OPERATOR: Final = "app.kubernetes.io/name=moeops,app.kubernetes.io/component=operator"
_VERSION_LABEL: Final = "app.kubernetes.io/version"


def version(args: Namespace, session: Session) -> Exit:
    """Show versions; an operator that may not be looked for is no error."""
    mine = installed("moeops")
    said: dict[str, Any] = {"client": mine, "apiVersion": API_VERSION}
    why = ""
    if not args.client:
        try:
            found = session.everywhere().list("Deployment", _OPERATOR)
            said["operators"] = [_operator(body) for body in found]
        except ClusterError as error:
            why = str(error)
            said["operators"] = None
    if args.output != "text":
        session.show(said, args.output)
    else:
        session.print("\n".join(_lines(said, why)))
        session.advise(_steps(said, mine))
    return Exit.HEALTHY


def _operator(deployment: Body) -> dict[str, Any]:
    metadata, status = deployment["metadata"], deployment.get("status", {})
    wanted = deployment["spec"].get("replicas", 0)
    return {
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "version": metadata.get("labels", {}).get(_VERSION_LABEL, ""),
        "image": deployment["spec"]["template"]["spec"]["containers"][0]["image"],
        "ready": f"{status.get('readyReplicas', 0)}/{wanted}",
    }


def _lines(said: Mapping[str, Any], why: str) -> Iterator[str]:
    yield f"kubectl moe {said['client']} ({said['apiVersion']})"
    if why:
        yield f"operator: unknown: {why}"
    elif "operators" in said and not said["operators"]:
        yield "operator: none in this cluster"
    for one in said.get("operators") or ():
        where = f"{one['namespace']}/{one['name']}"
        yield f"operator {one['version'] or '?'} ({where}, ready {one['ready']}, {one['image']})"


def _steps(said: Mapping[str, Any], mine: str) -> Iterator[Step]:
    operators = said.get("operators")
    if operators == []:
        yield Step(
            "helm upgrade --install moeops charts/moeops -n moeops-system --create-namespace",
            "install it",
        )
    elif operators and any(one["version"] not in ("", mine) for one in operators):
        yield Step("pipx install --force 'moeops[cli]'", "the same version as the operator's")
