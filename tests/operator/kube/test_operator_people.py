"""People at a real API server: who asked is true, and each role may what it is for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.kube.server import KubeServer
from tests.operator.engine.bodies import expert, gate, mixture, override

ROLES = ("viewer", "editor", "responder", "admin")
READ = ("get", "list", "watch")
WRITE = ("create", "update", "patch", "delete")
SPECS = ("mixtures", "experts", "gates")
OURS = (*SPECS, "overrides", "routingtables")
RUNNING = ("pods", "deployments", "controllerrevisions")
RBAC = "rbac.authorization.k8s.io"


LISTED = [{"kind": "Expert", "name": "e", "insteadOf": "v1"}]


def path(namespace: str, plural: str) -> str:
    return f"/apis/moeops.dev/v1alpha1/namespaces/{namespace}/{plural}"


def bind(server: KubeServer, namespace: str, role: str, user: str) -> None:
    """Give a user one of our roles in a namespace, and wait until the server knows."""
    body = {
        "metadata": {"name": f"{user}-{role}"},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": f"moeops-{role}"},
        "subjects": [{"apiGroup": RBAC, "kind": "User", "name": user}],
    }
    server.request("POST", f"/apis/{RBAC}/v1/namespaces/{namespace}/rolebindings", body)
    until = time.monotonic() + 30
    while not may(server, namespace, user, "get", "experts"):
        assert time.monotonic() < until
        time.sleep(0.05)


def may(server: KubeServer, namespace: str, user: str, verb: str, resource: str) -> bool:
    """Ask the server's own authorizer."""
    plural, _, subresource = resource.partition("/")
    group = {"pods": "", "deployments": "apps", "controllerrevisions": "apps"}
    attributes = {
        "namespace": namespace,
        "verb": verb,
        "group": group.get(plural, "moeops.dev"),
        "resource": plural,
        "subresource": subresource,
    }
    body = {"spec": {"user": user, "resourceAttributes": attributes}}
    answer = server.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
    return bool(answer["status"]["allowed"])


@pytest.fixture
def people(installed: KubeServer, namespace: str) -> KubeServer:
    """The API server, where for each role a user of that name has it."""
    for role in ROLES:
        bind(installed, namespace, role, role)
    return installed


def refusal(
    server: KubeServer, method: str, where: str, body: object, user: str
) -> tuple[int, str]:
    with pytest.raises(HTTPError) as refused:
        server.request(method, where, body, user)
    with refused.value as answer:
        message: str = json.loads(answer.read())["message"]
        return refused.value.code, message


def pause(name: str, **spec: Any) -> dict[str, Any]:
    return override(name, "tiny-e0", "Pause", insteadOf="v1", **spec) | {"metadata": {"name": name}}


def test_who_asks_is_written_by_the_api_server(people: KubeServer, namespace: str) -> None:
    made = people.request("POST", path(namespace, "overrides"), pause("a"), user="responder")
    assert made["spec"]["requestedBy"] == "responder"


def test_ones_own_name_is_taken(people: KubeServer, namespace: str) -> None:
    body = pause("a", requestedBy="responder")
    made = people.request("POST", path(namespace, "overrides"), body, user="responder")
    assert made["spec"]["requestedBy"] == "responder"


def test_a_name_that_is_forged_is_refused(people: KubeServer, namespace: str) -> None:
    body = pause("a", requestedBy="ann")
    code, said = refusal(people, "POST", path(namespace, "overrides"), body, user="responder")
    assert code == 403
    assert "spec.requestedBy is ann; it must be responder, who creates this Override" in said
    code, said = refusal(people, "POST", path(namespace, "overrides"), body, user="")
    assert (code, "it must be admin" in said) == (403, True)


def test_who_asked_cannot_be_changed_afterwards(people: KubeServer, namespace: str) -> None:
    made = people.request("POST", path(namespace, "overrides"), pause("a"), user="responder")
    made["spec"]["requestedBy"] = "ann"
    code, said = refusal(people, "PUT", path(namespace, "overrides/a"), made, user="")
    assert code == 422
    assert "an Override is immutable" in said


def allowed() -> Iterator[Any]:
    """Give who may do what: role, verbs, resources, and whether."""
    for role in ROLES:
        yield pytest.param(
            role, READ, (*SPECS, "overrides", "routingtables"), True, id=f"{role} sees"
        )
        yield pytest.param(role, ("list",), RUNNING, True, id=f"{role} sees what runs")
        yield pytest.param(
            role,
            WRITE,
            ("experts/status", "overrides/status", "routingtables"),
            False,
            id=f"{role} writes no status and no table",
        )
        edits = role in ("editor", "admin")
        yield pytest.param(role, WRITE, SPECS, edits, id=f"{role} edits specs: {edits}")
        yield pytest.param(
            role, ("patch",), ("experts/scale",), edits, id=f"{role} scales: {edits}"
        )
        decides = role in ("responder", "admin")
        yield pytest.param(
            role, ("create", "delete"), ("overrides",), decides, id=f"{role} decides: {decides}"
        )
        yield pytest.param(
            role, ("update", "patch"), ("overrides",), False, id=f"{role} changes no decision"
        )


@pytest.fixture(scope="module")
def roles(installed: KubeServer) -> tuple[KubeServer, str]:
    """The API server, and a namespace in which users have the roles that they are named for."""
    installed.create_namespace("people")
    for role in ROLES:
        bind(installed, "people", role, role)
    return installed, "people"


@pytest.mark.parametrize(("role", "verbs", "resources", "expected"), list(allowed()))
def test_what_a_role_may(
    roles: tuple[KubeServer, str],
    role: str,
    verbs: tuple[str, ...],
    resources: tuple[str, ...],
    expected: bool,
) -> None:
    server, namespace = roles
    for verb in verbs:
        for resource in resources:
            assert may(server, namespace, role, verb, resource) is expected, f"{verb} {resource}"
    assert not may(server, "default", role, verbs[0], resources[0]), "elsewhere it may nothing"


def test_an_editor_changes_specs_and_takes_nothing_back(people: KubeServer, namespace: str) -> None:
    for plural, body in (
        ("mixtures", mixture()),
        ("experts", expert("e0")),
        ("gates", gate("e0")),
    ):
        own = {**body, "metadata": {"name": body["metadata"]["name"]}}
        people.request("POST", path(namespace, plural), own, user="editor")
        assert refusal(people, "POST", path(namespace, plural), own, user="responder")[0] == 403
    code, said = refusal(people, "POST", path(namespace, "overrides"), pause("a"), user="editor")
    assert code == 403
    assert 'cannot create resource "overrides"' in said
    people.request("POST", path(namespace, "overrides"), pause("a"), user="responder")
    people.request("DELETE", path(namespace, "overrides/a"), user="responder")


def test_the_clusters_own_roles_get_what_is_said(installed: KubeServer) -> None:
    """view sees, edit edits, admin does all; who only edits gets no Overrides by aggregation."""
    found = {}
    for role in ROLES:
        body = installed.request("GET", f"/apis/{RBAC}/v1/clusterroles/moeops-{role}")
        found[role] = [
            label.removeprefix(f"{RBAC}/aggregate-to-")
            for label in body["metadata"]["labels"]
            if label.startswith(RBAC)
        ]
    assert found == {"viewer": ["view"], "editor": ["edit"], "responder": [], "admin": ["admin"]}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"action": "Pause", "epoch": 3, "replaces": []}, "there is only Serve"),
        ({"action": "Serve", "epoch": 3}, "needs epoch and replaces"),
        ({"action": "Serve", "epoch": 3, "replaces": []}, "should have at least 1 items"),
        ({"action": "Serve", "epoch": 0, "replaces": LISTED}, "greater than or equal to 1"),
        ({"action": "Serve", "epoch": 3, "replaces": [1]}, "must be of type object"),
        (
            {"action": "Serve", "epoch": 3, "version": "v1", "replaces": LISTED},
            "version and insteadOf are for an Expert",
        ),
        (
            {"action": "Serve", "epoch": 3, "replaces": LISTED * 2},
            "Duplicate value",
        ),
    ],
)
def test_a_mistake_in_an_override_of_a_mixture_is_refused(
    installed: KubeServer, namespace: str, spec: dict[str, Any], words: str
) -> None:
    body = override("a", "tiny", "Serve")
    body |= {
        "metadata": {"name": "a"},
        "spec": {"targetRef": {"kind": "Mixture", "name": "m"}} | spec,
    }
    code, said = refusal(installed, "POST", path(namespace, "overrides"), body, user="")
    assert (code, words in said) == (422, True), said


def test_an_expert_has_no_epoch(installed: KubeServer, namespace: str) -> None:
    body = pause("a", epoch=3)
    code, said = refusal(installed, "POST", path(namespace, "overrides"), body, user="")
    assert (code, "epoch and replaces are for a Mixture" in said) == (422, True)
