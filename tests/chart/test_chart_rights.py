"""The operator's rights are what it asks for, no more and no less; in both scopes.

What TLS adds to them is tested beside, in `test_chart_tls`.
What it writes is seen in stories that it lives through on an API server in memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from moe_operator.kinds import EVENT, KINDS, OPTIONAL, ROLE, WATCHED
from tests.chart import charts
from tests.chart.charts import SYSTEM, TEAMS, Body
from tests.operator.engine.bodies import mixture
from tests.operator.engine.play import Play
from tests.operator.engine.scenarios import (
    Scenario,
    evaluated,
    from_nothing,
    good,
    mixture_made_again,
    paused_and_resumed,
)
from tests.operator.engine.scene import Scene

PLAIN = {"tls": {"mode": "Disabled"}}
Rights = Mapping[tuple[str, str], frozenset[str]]
READ = frozenset({"get", "list", "watch"})
VERBS: Mapping[str, frozenset[str]] = {
    "create": frozenset({"create"}),
    "replace": frozenset({"update"}),
    "apply": frozenset({"create", "patch"}),
    "merge": frozenset({"patch"}),
    "merge status": frozenset({"patch"}),
    "delete": frozenset({"delete"}),
}


async def pruned(scene: Scene) -> None:
    await scene.put(mixture(revisionHistoryLimit=1))
    await good(scene)


async def closed_and_opened(scene: Scene) -> None:
    await scene.put(mixture(networkPolicy={}))
    await scene.rest()
    await scene.put(mixture())
    await scene.rest()


STORIES: tuple[Scenario, ...] = (
    *(pruned, paused_and_resumed, mixture_made_again, evaluated),
    closed_and_opened,
)


def union(pairs: Iterable[tuple[tuple[str, str], Iterable[str]]]) -> Rights:
    found: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for place, verbs in pairs:
        found[place] |= set(verbs)
    return {place: frozenset(verbs) for place, verbs in found.items()}


def given(role: Body) -> Rights:
    """Return the verbs that a role gives, by (group, resource)."""
    return union(
        ((group, resource), rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    )


async def asked() -> Rights:
    """Return what the operator reads, is seen to write, and gives to routers."""
    served = Play()
    await from_nothing(served)
    writes = set(served.writes)
    for story in STORIES:
        play = served.copy()
        await play.operate(True)
        await story(play)
        writes |= set(play.writes)
    roles = [body for (kind, *_), body in served.api.objects.items() if kind == ROLE]
    assert roles, "no role of routers was made"
    parts: list[Rights] = [{(kind.group, kind.plural): READ} for kind in WATCHED]
    parts += [needed(write) for write in writes]
    parts += [given(dict(role)) for role in roles]
    parts += [{(EVENT.group, EVENT.plural): VERBS["create"]}]
    return union(pair for part in parts for pair in part.items())


def needed(write: str) -> Rights:
    """Return the rights that a write takes, which a play notes as `merge status Expert`."""
    verb, _, name = write.rpartition(" ")
    kind = KINDS[name]
    plural = f"{kind.plural}/status" if verb == "merge status" else kind.plural
    return {(kind.group, plural): VERBS[verb]}


async def test_the_operator_may_what_it_asks_for_and_nothing_else() -> None:
    (role,) = (
        body
        for name, body in charts.of(charts.render(PLAIN), "ClusterRole").items()
        if name == "moeops-operator"
    )
    assert given(role) == await asked()


def test_in_some_namespaces_it_has_the_same_rights_and_none_elsewhere() -> None:
    everywhere, here = charts.render(), charts.render(TEAMS)
    whole = given(charts.of(everywhere, "ClusterRole")["moeops-operator"])
    optional = {(kind.group, kind.plural) for kind in OPTIONAL}
    roles = charts.of(here, "Role")
    for namespace in ("team-a", "team-b"):
        role = roles[f"{namespace}/moeops-operator-mixtures"]
        assert given(role) == {p: verbs for p, verbs in whole.items() if p not in optional}
        bound = charts.of(here, "RoleBinding")[f"{namespace}/moeops-operator-mixtures"]
        assert bound["roleRef"]["name"] == role["metadata"]["name"]
        assert bound["subjects"] == [account("moeops-operator")]
    (binding,) = charts.of(here, "ClusterRoleBinding").values()
    nodes = charts.of(here, "ClusterRole")[binding["roleRef"]["name"]]
    assert given(nodes) == dict.fromkeys(optional, READ)


@pytest.mark.parametrize("scope", [{}, TEAMS], ids=["cluster", "namespaces"])
def test_without_nodes_it_may_nothing_outside_of_namespaces(scope: Mapping[str, Any]) -> None:
    bodies = charts.render({**scope, "rbac": {"nodes": False}})
    ours = {name for name in charts.of(bodies, "ClusterRole") if "operator" in name}
    assert ours == (set() if scope else {"moeops-operator"})
    for name in ours:
        assert ("", "nodes") not in given(charts.of(bodies, "ClusterRole")[name])


def test_of_leases_it_has_its_own_only() -> None:
    role = charts.of(charts.render(PLAIN, release="other"), "Role")[
        f"{SYSTEM}/other-moeops-operator"
    ]
    group = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    assert role["rules"] == [
        {**group, "verbs": ["create"]},
        {**group, "resourceNames": ["other-moeops-operator"], "verbs": ["get", "update"]},
    ]


@pytest.mark.parametrize("scope", [{}, TEAMS], ids=["cluster", "namespaces"])
def test_nobody_may_use_wildcards_or_read_secrets_but_its_own_authority(
    scope: Mapping[str, Any],
) -> None:
    for values in (scope, {**scope, **PLAIN}):
        roles = [b for b in charts.render(values) if b["kind"].endswith("Role")]
        for rule in (rule for role in roles for rule in role["rules"]):
            said = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert not said & {"*", "configmaps", "escalate", "bind", "impersonate"}
            if "secrets" in said:
                assert values != {**scope, **PLAIN}
                named = rule.get("resourceNames") == ["moeops-operator-ca"]
                assert named or set(rule["verbs"]) <= {"create", "update"}


def account(name: str) -> Body:
    return {"kind": "ServiceAccount", "name": name, "namespace": SYSTEM}
