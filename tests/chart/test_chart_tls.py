"""With TLS the operator gets the rights on Secrets that it uses, and those only."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from moe_operator.cache import Cache
from moe_operator.certify import Certify
from moe_operator.kinds import MIXTURE, Body, Kind, metadata
from moe_operator.options import Options
from moe_operator.tls import TlsMode
from tests.chart import charts
from tests.chart.charts import SYSTEM, TEAMS
from tests.chart.test_chart_rights import VERBS
from tests.fakes.kube_api import KubeApi

SECURE = {"tls": {"mode": "Permitted"}}
OPERATOR, AUTHORITY = "moeops-operator", "moeops-operator-ca"


def rules(role: Body) -> list[dict[str, Any]]:
    return [rule for rule in role["rules"] if "secrets" in rule["resources"]]


@dataclass
class Noted(KubeApi):
    """Notes whom each call was about."""

    calls: set[tuple[str, str, str]] = field(default_factory=set)

    async def get(self, kind: Kind, namespace: str, name: str) -> Body:
        self.calls.add(("get", namespace, name))
        return await super().get(kind, namespace, name)

    async def create(self, kind: Kind, body: Body) -> Body:
        self._note("create", body)
        return await super().create(kind, body)

    async def replace(self, kind: Kind, body: Body) -> Body:
        self._note("replace", body)
        return await super().replace(kind, body)

    def _note(self, verb: str, body: Body) -> None:
        meta = metadata(body)
        self.calls.add((verb, str(meta["namespace"]), str(meta["name"])))


async def asked() -> set[tuple[str, str, str]]:
    """Return what an operator, the next one, and an exchange of the authority ask for."""
    api, cache, days = Noted(), Cache(), [0]
    meta = {"name": "tiny", "namespace": "team-a", "uid": "u"}
    cache.put(MIXTURE, {"kind": "Mixture", "metadata": meta})

    def now() -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(days=days[0])

    for day in (0, 1, 700, 710, 760):
        days[0] = day
        certify = Certify(api, api, cache, SYSTEM, AUTHORITY, "operator", now)
        assert await certify.once()
    return api.calls


async def test_it_may_what_it_asks_for_and_nothing_else() -> None:
    bodies, calls = charts.render(SECURE), await asked()
    (everywhere,) = rules(charts.of(bodies, "ClusterRole")[OPERATOR])
    verbs = {v for verb, namespace, _ in calls if namespace == "team-a" for v in VERBS[verb]}
    assert (set(everywhere["verbs"]), "resourceNames" in everywhere) == (verbs, False)
    made, kept = rules(charts.of(bodies, "Role")[f"{SYSTEM}/{OPERATOR}"])
    own = {(verb, name) for verb, namespace, name in calls if namespace == SYSTEM}
    assert own == {("create", AUTHORITY), ("get", AUTHORITY), ("replace", AUTHORITY)}
    assert made["verbs"] == ["create"]
    assert (kept["verbs"], kept["resourceNames"]) == (["get", "update"], [AUTHORITY])


def test_in_some_namespaces_it_has_the_same_rights_there_only() -> None:
    bodies = charts.render({**TEAMS, **SECURE})
    for namespace in ("team-a", "team-b"):
        (rule,) = rules(charts.of(bodies, "Role")[f"{namespace}/{OPERATOR}-mixtures"])
        assert rule["verbs"] == ["create", "update"]
    assert not any(rules(role) for role in charts.of(bodies, "ClusterRole").values())


def test_nobody_but_the_operator_gets_near_secrets() -> None:
    roles = [b for b in charts.render(SECURE) if b["kind"].endswith("Role") and rules(b)]
    assert {role["metadata"]["name"] for role in roles} == {OPERATOR}
    assert not any({"list", "watch", "patch"} & set(r["verbs"]) for b in roles for r in rules(b))


@pytest.mark.parametrize("mode", list(TlsMode))
def test_the_operator_is_told_the_mode(mode: TlsMode) -> None:
    (operator,) = charts.of(charts.render({"tls": {"mode": mode.value}}), "Deployment").values()
    (container,) = operator["spec"]["template"]["spec"]["containers"]
    env = {item["name"]: item.get("value", "") for item in container["env"]}
    options = Options.read([], {**env, "POD_NAMESPACE": SYSTEM})
    assert options.settings.tls is mode
    if mode is not TlsMode.DISABLED:
        assert options.settings.operator == f"{OPERATOR}.{SYSTEM}.svc"
        assert options.authority == AUTHORITY


def test_a_mode_that_is_none_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    images = {"MOE_WORKER_IMAGE": "w", "MOE_ROUTER_IMAGE": "r", "MOE_TLS_MODE": "On"}
    with pytest.raises(SystemExit):
        Options.read([], images)
    assert "it is 'On'; it must be Disabled or Permitted or Required" in capsys.readouterr().err


CERT_MANAGER = "cert-manager.io/v1/Certificate"
GIVEN = f"{AUTHORITY}-given"


@pytest.mark.parametrize(
    ("tls", "known", "source"),
    [
        pytest.param({}, False, "", id="the cluster has no cert-manager"),
        pytest.param({}, True, GIVEN, id="the cluster has it"),
        pytest.param({"certManager": "Never"}, True, "", id="it is not to be asked"),
        pytest.param({"certManager": "Always"}, False, GIVEN, id="the cluster will have it"),
        pytest.param({"authoritySecret": "ours"}, True, "ours", id="people give one"),
        pytest.param({"mode": "Disabled"}, True, "", id="no TLS"),
    ],
)
def test_where_the_authority_comes_from(tls: dict[str, Any], known: bool, source: str) -> None:
    flags = (f"--api-versions={CERT_MANAGER}",) if known else ("--api-versions=v1",)
    bodies = charts.render({"tls": tls}, *flags)
    (operator,) = charts.of(bodies, "Deployment").values()
    (container,) = operator["spec"]["template"]["spec"]["containers"]
    env = {item["name"]: item.get("value", "") for item in container["env"]}
    assert Options.read([], {**env, "POD_NAMESPACE": SYSTEM}).authority_from == source
    readable = {
        name
        for rule in rules(charts.of(bodies, "Role")[f"{SYSTEM}/{OPERATOR}"])
        if "get" in rule["verbs"]
        for name in rule["resourceNames"]
    }
    assert readable - {AUTHORITY} == ({source} if source else set())
    asked = charts.of(bodies, "Certificate")
    assert [body["spec"]["secretName"] for body in asked.values()] == [source] * (source == GIVEN)


@pytest.mark.parametrize("ours", [{}, {"name": "vault", "kind": "ClusterIssuer"}], ids=bool)
def test_cert_manager_is_asked_for_an_authority(ours: dict[str, str]) -> None:
    bodies = charts.render({"tls": {"certManager": "Always", "issuerRef": ours}})
    (certificate,) = charts.of(bodies, "Certificate").values()
    issuers = {body["metadata"]["name"]: body for body in charts.of(bodies, "Issuer").values()}
    said = certificate["spec"]
    assert (said["isCA"], said["privateKey"]["algorithm"]) == (True, "ECDSA")
    if ours:
        assert (said["issuerRef"], issuers) == (ours, {})
    else:
        assert issuers[said["issuerRef"]["name"]]["spec"] == {"selfSigned": {}}
