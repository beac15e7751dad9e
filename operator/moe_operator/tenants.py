"""What tenants add to the pods of a mixture: digests of tokens for routers, a token for evaluators.

The Secrets have fixed names, so that who may write a Mixture does not thereby reach any other
Secret of its namespace. The kubelet mounts them; the operator reads neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from moe_core.tenants import Tenant, to_json

FOLDER: Final = "/etc/moeops/tenants"
TOKEN: Final = "token"  # the key in the evaluators' Secret


def digests_name(mixture: str) -> str:
    return f"{mixture}-tenants"


def token_name(mixture: str) -> str:
    return f"{mixture}-evaluator-token"


def env(tenants: Iterable[Tenant]) -> dict[str, str]:
    """Return what a router knows tenants by; nothing where there are none."""
    listed = list(tenants)
    return {"MOE_TENANTS": to_json(listed), "MOE_TENANTS_FOLDER": FOLDER} if listed else {}


def with_digests(spec: Mapping[str, Any], mixture: str) -> dict[str, Any]:
    """Return a pod's spec whose one container has the digests of the tenants' tokens."""
    (container,) = spec["containers"]
    mount = {"name": "tenants", "mountPath": FOLDER, "readOnly": True}
    volume = {"name": "tenants", "secret": {"secretName": digests_name(mixture)}}
    mounted = {**container, "volumeMounts": [*container["volumeMounts"], mount]}
    return {**spec, "volumes": [*spec["volumes"], volume], "containers": [mounted]}


def with_token(spec: Mapping[str, Any], mixture: str) -> dict[str, Any]:
    """Return a pod's spec whose one container has the evaluators' token, if there is one."""
    (container,) = spec["containers"]
    source = {"name": token_name(mixture), "key": TOKEN, "optional": True}
    variable = {"name": "MOE_TOKEN", "valueFrom": {"secretKeyRef": source}}
    told = {**container, "env": [*container["env"], variable]}
    return {**spec, "containers": [told]}
