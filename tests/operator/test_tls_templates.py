"""What TLS adds to pods and Services, and how an address says that a program has it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moe_core.rollout import Version
from moe_operator import labels, tls
from moe_operator.observe import pod_seen
from moe_operator.plan import beside
from moe_operator.render import mixture_children
from moe_operator.spec import ExpertSpec, MixtureSpec
from moe_operator.template import Settings, router_template, worker_template
from moe_operator.tls import TlsMode
from moe_operator.world import World
from tests.operator.engine.bodies import expert, mixture

PLAIN = Settings("worker", "router")
NAME = "moeops-operator.moeops-system.svc"
SECURE = {mode: replace(PLAIN, tls=mode, operator=NAME) for mode in TlsMode}
TINY = MixtureSpec.from_body(mixture())
E3 = ExpertSpec.from_body(expert("e3"))
V1 = Version("v1", "0" * 64, "file:///e3")


def worker(settings: Settings) -> dict[str, Any]:
    spec: dict[str, Any] = worker_template(TINY, E3, V1, settings)["spec"]
    return spec


def ports(spec: dict[str, Any]) -> dict[str, int]:
    (container,) = spec["containers"]
    return {port["name"]: port["containerPort"] for port in container["ports"]}


def env(spec: dict[str, Any]) -> dict[str, str]:
    (container,) = spec["containers"]
    return {item["name"]: item["value"] for item in container["env"] if "value" in item}


def probed(spec: dict[str, Any]) -> set[int]:
    (container,) = spec["containers"]
    kinds = ("startupProbe", "readinessProbe", "livenessProbe")
    return {container[kind]["grpc"]["port"] for kind in kinds}


def secret(spec: dict[str, Any]) -> str:
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "tls"]
    (mount,) = [m for m in spec["containers"][0]["volumeMounts"] if m["name"] == "tls"]
    assert mount == {"name": "tls", "mountPath": env(spec)["MOE_TLS"], "readOnly": True}
    return str(volume["secret"]["secretName"])


def test_a_worker_says_by_its_ports_that_its_links_have_tls() -> None:
    plain, secure = worker(PLAIN), worker(SECURE[TlsMode.PERMITTED])
    assert ports(plain) == {"link": 7100, "control": 7101, "metrics": 7102}
    assert ports(secure) == {"link-tls": 7100, "control": 7101, "metrics": 7102, "health": 7103}
    assert (probed(plain), probed(secure)) == ({7101}, {7103})
    assert secret(secure) == f"{TINY.meta.name}-workers-tls"
    assert env(secure)["MOE_TLS_OPERATOR"] == NAME
    assert not [name for name in env(plain) if "TLS" in name]


@pytest.mark.parametrize(
    ("mode", "listens", "served"),
    [
        pytest.param(TlsMode.DISABLED, None, {"grpc": 7000}, id="without"),
        pytest.param(
            TlsMode.PERMITTED, None, {"grpc": 7000, "grpc-tls": 7443}, id="clients may have it"
        ),
        pytest.param(
            TlsMode.REQUIRED, "127.0.0.1:7000", {"grpc-tls": 7443}, id="clients must have it"
        ),
    ],
)
def test_the_edge_by_mode(mode: TlsMode, listens: str | None, served: dict[str, int]) -> None:
    spec = router_template(TINY, SECURE[mode])["spec"]
    assert env(spec).get("MOE_LISTEN") == listens
    bodies = {m.body["metadata"]["name"]: m.body for m in mixture_children(TINY, SECURE[mode])
              if m.body["kind"] == "Service"}  # fmt: skip
    offered = bodies[f"{TINY.meta.name}-router"]["spec"]["ports"]
    assert {port["name"]: port["port"] for port in offered} == served
    assert all(port["targetPort"] in ports(spec) for port in offered)
    links = bodies[f"{TINY.meta.name}-workers"]["spec"]["ports"]
    expected = ["link"] if mode is TlsMode.DISABLED else ["link", "link-tls"]
    assert [port["targetPort"] for port in links] == expected
    if mode is not TlsMode.DISABLED:
        assert secret(spec) == f"{TINY.meta.name}-router-tls"
        assert probed(spec) == {7003}


@pytest.mark.parametrize("mode", list(TlsMode))
def test_a_pod_is_seen_with_what_its_template_says(mode: TlsMode) -> None:
    """Routers that are open to all callers are asked without TLS, too."""
    secure = {
        worker(SECURE[mode])["containers"][0]["name"]: mode is not TlsMode.DISABLED,
        "router": mode is TlsMode.REQUIRED,
    }
    for spec in (worker(SECURE[mode]), router_template(TINY, SECURE[mode])["spec"]):
        meta = {"name": "p", "resourceVersion": "1", "creationTimestamp": "2030-01-01T00:00:00Z"}
        seen = pod_seen({"metadata": meta, "spec": spec, "status": {}})
        assert seen.secure is secure[spec["containers"][0]["name"]]


@pytest.mark.parametrize(
    ("mode", "secure", "made_by"),
    [
        pytest.param(TlsMode.DISABLED, False, TlsMode.DISABLED, id="nothing has it"),
        pytest.param(TlsMode.DISABLED, True, TlsMode.PERMITTED, id="a worker still has it"),
        pytest.param(TlsMode.REQUIRED, True, TlsMode.REQUIRED, id="it is asked for"),
    ],
)
def test_routers_keep_tls_while_a_worker_has_it(
    mode: TlsMode, secure: bool, made_by: TlsMode
) -> None:
    meta = {"name": "p", "resourceVersion": "1", "creationTimestamp": "2030-01-01T00:00:00Z"}
    own = {"metadata": {**meta, "labels": {labels.COMPONENT: labels.WORKER}}, "status": {}}
    pod = pod_seen({**own, "spec": worker(SECURE[TlsMode.PERMITTED] if secure else PLAIN)})
    own_name = TINY.meta.namespace, TINY.meta.name
    world = World(*own_name, TINY, None, *((),) * 5, pods=(pod,), routers=(), workers=())
    assert beside(SECURE[mode], world).tls is made_by


def test_an_address_says_whose_certificate_is_right() -> None:
    text = tls.address("tiny-router.default.svc", "10.0.0.1:7443")
    assert tls.parsed(text) == ("tiny-router.default.svc", "10.0.0.1:7443")
    assert tls.parsed("10.0.0.1:7000") == ("", "10.0.0.1:7000")
