"""Who may reach the pods of a mixture: made where it is asked for, as it says, and gone after."""

from __future__ import annotations

from typing import Any

import pytest

from moe_operator.guards import network_policies
from moe_operator.spec import MixtureSpec
from tests.operator.plan.bodies import mixture
from tests.operator.plan.looks import started

APPS = {"namespaceSelector": {"matchLabels": {"team": "apps"}}}
MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}


def doors(network: dict[str, Any], operator: str = "moeops-system") -> dict[str, dict[int, Any]]:
    """Return who is accepted, by component and port."""
    made = network_policies(MixtureSpec.from_body(mixture(networkPolicy=network)), operator)
    specs = [policy.body["spec"] for policy in made]
    assert all(spec["policyTypes"] == ["Ingress"] for spec in specs)
    return {
        spec["podSelector"]["matchLabels"]["moeops.dev/component"]: {
            rule["ports"][0]["port"]: [_who(peer) for peer in rule["from"]]
            for rule in spec["ingress"]
        }
        for spec in specs
    }


def _who(peer: dict[str, Any]) -> Any:
    """Say in a word who a peer of ours is; a person's own are given back."""
    labels = peer.get("podSelector", {}).get("matchLabels", {})
    own = {"moeops.dev/mixture": "tiny", "moeops.dev/component": ""}
    if labels.keys() == own.keys() and labels["moeops.dev/mixture"] == "tiny":
        assert peer.keys() == {"podSelector"}, "of this namespace only"
        return labels["moeops.dev/component"]
    if labels.get("app.kubernetes.io/component") == "operator":
        within = peer["namespaceSelector"]["matchLabels"]
        return f"operator in {within['kubernetes.io/metadata.name']}"
    return peer


@pytest.mark.parametrize(
    ("network", "operator", "routers", "workers"),
    [
        pytest.param(
            {},
            "moeops-system",
            {7000: ["evaluator", "operator in moeops-system", {"podSelector": {}}]},
            {7100: ["router"], 7101: ["operator in moeops-system"]},
            id="by itself its namespace may ask, and nobody read metrics",
        ),
        pytest.param(
            {"clients": [APPS], "metrics": [MONITORING]},
            "ops",
            {7000: ["evaluator", "operator in ops", APPS], 7002: [MONITORING]},
            {7100: ["router"], 7101: ["operator in ops"], 7102: [MONITORING]},
            id="who is named may",
        ),
        pytest.param(
            {"clients": []},
            "",
            {7000: ["evaluator"]},
            {7100: ["router"]},
            id="no client at all, and an operator that is not in the cluster",
        ),
    ],
)
def test_each_port_is_open_to_whom_it_is_for(
    network: dict[str, Any], operator: str, routers: dict[int, Any], workers: dict[int, Any]
) -> None:
    assert doors(network, operator) == {"router": routers, "worker": workers}


def test_they_come_and_go_with_the_field_and_touch_no_pod() -> None:
    sim = started()
    assert sim.policies == {}
    pods = set(sim.pods)
    sim.put("Mixture", mixture(networkPolicy={}))
    sim.run(2)
    assert set(sim.policies) == {"tiny-router", "tiny-workers"}
    written = len(sim.writes)
    sim.run(5)
    assert sim.writes[written:] == []
    sim.put("Mixture", mixture())
    sim.run(2)
    assert sim.policies == {}
    assert set(sim.pods) == pods
