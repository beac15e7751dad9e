"""What tenants of a Mixture change in its pods, and that without them nothing does."""

from __future__ import annotations

from typing import Any

from moe_core.tenants import from_json
from moe_operator.golden import Trial
from moe_operator.spec import ExpertSpec, MixtureSpec
from moe_operator.template import evaluator_spec, router_template, worker_template
from tests.operator.plan.bodies import expert, mixture
from tests.operator.plan.simulation import SETTINGS

TENANTS = [{"name": "team-a", "weight": 3, "rowsPerSecond": 100}, {"name": "team-b"}]
WITH = MixtureSpec.from_body(mixture(tenants=TENANTS))
WITHOUT = MixtureSpec.from_body(mixture())
SHA = "0" * 64


def variables(spec: Any) -> dict[str, Any]:
    (container,) = spec["containers"]
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}


def test_routers_have_the_digests_and_know_the_quotas() -> None:
    spec = router_template(WITH, SETTINGS)["spec"]
    (container,) = spec["containers"]
    (volume,) = [one for one in spec["volumes"] if one["name"] == "tenants"]
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "tenants"]

    assert volume["secret"] == {"secretName": "tiny-tenants"}
    assert mount["readOnly"]
    told = variables(spec)
    assert told["MOE_TENANTS_FOLDER"] == mount["mountPath"]
    assert from_json(told["MOE_TENANTS"]) == WITH.tenants


def test_evaluators_have_their_token_where_there_is_one() -> None:
    trial = Trial(SHA, "e0", SHA, SHA)
    known = ExpertSpec.from_body(expert("e0"))
    told = variables(evaluator_spec(WITH, known, trial, "file:///golden", SETTINGS))
    assert told["MOE_TOKEN"] == {
        "secretKeyRef": {"name": "tiny-evaluator-token", "key": "token", "optional": True}
    }
    plain = variables(evaluator_spec(WITHOUT, known, trial, "file:///golden", SETTINGS))
    assert "MOE_TOKEN" not in plain


def test_workers_and_mixtures_without_tenants_are_as_they_were() -> None:
    known = ExpertSpec.from_body(expert("e0"))
    assert worker_template(WITH, known, known.version, SETTINGS) == worker_template(
        WITHOUT, known, known.version, SETTINGS
    )
    assert "MOE_TENANTS" not in variables(router_template(WITHOUT, SETTINGS)["spec"])
