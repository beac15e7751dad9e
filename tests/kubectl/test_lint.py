"""`kubectl moe lint`: from files to sentences with their lines, offline and by a real server."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kubectl_moe.cluster import ApiCluster, ClusterError
from kubectl_moe.connection import connect
from kubectl_moe.health import Exit
from kubectl_moe.names import UsageError
from kubectl_moe.schema import check, dotted
from tests.kube.fixtures import ROOT
from tests.kube.server import KubeServer
from tests.kubectl import bodies
from tests.kubectl.terminal import Terminal

Body = dict[str, Any]
API = "moeops.dev/v1alpha1"


def mixture(layers: int = 2) -> Body:
    spec = {"hiddenSize": 8, "layers": layers, "dtype": "BFloat16"}
    trunk = {"uri": "file:///trunk", "sha256": bodies.sha("t")}
    spec = {**spec, "trunk": trunk}
    return {"apiVersion": API, "kind": "Mixture", "metadata": {"name": "tiny"}, "spec": spec}


def expert(expert_id: str = "e0", **spec: Any) -> Body:
    return {
        "apiVersion": API,
        "kind": "Expert",
        "metadata": {"name": f"tiny-{expert_id}"},
        "spec": {
            "mixtureRef": {"name": "tiny"},
            "expertId": expert_id,
            "layers": [0, 1],
            "version": "v1",
            "artifact": {"uri": "file:///e", "sha256": bodies.sha("v1")},
            **spec,
        },
    }


def gate(*experts: Body, top_k: int = 1, name: str = "tiny-gate", **spec: Any) -> Body:
    return {
        "apiVersion": API,
        "kind": "Gate",
        "metadata": {"name": name},
        "spec": {
            "mixtureRef": {"name": "tiny"},
            "version": "g1",
            "artifact": {"uri": "file:///g", "sha256": bodies.sha("g1")},
            "experts": list(experts),
            "policy": {"type": "TopK", "topK": top_k},
            **spec,
        },
    }


def lint(folder: Path, *there: Body, flags: str = "") -> tuple[Exit, list[str], Terminal]:
    """Lint objects of one file; return the exit code, and what was found without its place."""
    (folder / "all.yaml").write_text(yaml.safe_dump_all(there))
    terminal = Terminal()
    code = terminal.run(f"lint {folder}/all.yaml {flags}")
    return code, [line.split(": ", 1)[1] for line in terminal.lines()], terminal


def test_the_example_is_sound_and_the_next_command_is_said() -> None:
    terminal = Terminal()
    serve = ROOT / "examples" / "tiny" / "serve"
    assert terminal.run(f"lint {serve} --strict") is Exit.HEALTHY
    assert terminal.lines() == []
    said = terminal.progress.getvalue()
    assert "11 objects: 0 errors, 0 warnings" in said
    assert f"kubectl apply -f {serve}" in said


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        pytest.param([expert()], [], id="alone, and sound"),
        pytest.param([mixture(), expert(), gate({"id": "e0"})], [], id="together"),
        pytest.param(
            [expert(versoin="v2")],
            ["error: Expert tiny-e0: spec.versoin is no field; did you mean version?"],
            id="unknown field",
        ),
        pytest.param(
            [{**expert(), "apiVersion": "moeops.dev/v1"}],
            ["error: Expert tiny-e0: apiVersion is 'moeops.dev/v1'; it must be " + API],
            id="another version of the API",
        ),
        pytest.param(
            [{**expert(), "kind": "RoutingTable"}],
            [
                "error: RoutingTable tiny-e0: kind is 'RoutingTable'; people write Mixture, "
                "Expert, Gate, Override"
            ],
            id="what only the operator writes",
        ),
        pytest.param(
            [{**expert(), "metadata": {}}],
            ["error: Expert: metadata.name is missing"],
            id="no name",
        ),
        pytest.param(
            [expert(role="Chief")],
            ["error: Expert tiny-e0: spec.role is 'Chief'; it must be one of Routed, Dense"],
            id="enum",
        ),
        pytest.param(
            [expert(), expert()],
            ["error: Expert tiny-e0: metadata.name is 'tiny-e0', which is there twice"],
            id="one name twice",
        ),
        pytest.param(
            [mixture(1), expert()],
            [
                "error: Expert tiny-e0: spec.layers[1] is 1; the Mixture has 1 layers, "
                "counted from 0"
            ],
            id="a layer too many",
        ),
        pytest.param(
            [mixture(), expert(mixtureRef={"name": "huge"})],
            [
                "warning: Expert tiny-e0: spec.mixtureRef.name is 'huge', of which no Mixture "
                "is among these"
            ],
            id="another mixture",
        ),
        pytest.param(
            [expert(), {**expert(), "metadata": {"name": "other"}}],
            [
                "error: Expert other: spec.layers has layer 0 of e0, which tiny-e0 has too: "
                "the older one would count"
            ],
            id="two experts of one id and layer",
        ),
        pytest.param(
            [mixture(), gate({"id": "e0"}), gate({"id": "e0"}, name="late", layers=[1])],
            [
                "error: Gate late: spec.layers has layer 1, which tiny-gate has too: the older "
                "one would count"
            ],
            id="two gates of one layer",
        ),
        pytest.param(
            [gate({"id": "e0"}, top_k=2)],
            ["error: Gate tiny-gate: spec.policy.topK is 2, more than the 1 experts"],
            id="more chosen than there are",
        ),
        pytest.param(
            [expert(layers=[0]), gate({"id": "e0"}, {"id": "e9"}, layers=[0, 1])],
            [
                "warning: Gate tiny-gate: spec.experts[0].id is 'e0', which serves no layer 1 "
                "of this gate",
                "warning: Gate tiny-gate: spec.experts[1].id is 'e9', of which no Expert is "
                "among these",
            ],
            id="experts that are not there",
        ),
        pytest.param(
            [expert(), gate({"id": "e0", "versions": ["v2"]}, layers=[0, 1])],
            [
                "warning: Gate tiny-gate: spec.experts[0].versions do not have 'v1' of "
                "tiny-e0: it is Held"
            ],
            id="a version that the gate does not accept",
        ),
        pytest.param(
            [expert("e0", backupExpertId="e9"), expert("e1")],
            [
                "warning: Expert tiny-e0: spec.backupExpertId is 'e9', of which no Expert is "
                "among these"
            ],
            id="a backup that is not there",
        ),
        pytest.param(
            [{"apiVersion": "v1", "kind": "Service", "spec": {"any": "thing"}}],
            [],
            id="objects of others",
        ),
        pytest.param([{"no": "kind"}], ["error: is no object of Kubernetes: it has no kind"],
                     id="no object"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(tmp_path: Path, there: list[Body], expected: list[str]) -> None:
    code, found, _ = lint(tmp_path, *there)
    assert found == expected
    assert (code is Exit.ERROR) is any(line.startswith("error") for line in expected)


def test_strict_takes_warnings_for_errors(tmp_path: Path) -> None:
    there = [mixture(), expert(mixtureRef={"name": "huge"})]
    assert lint(tmp_path, *there)[0] is Exit.HEALTHY
    code, _, terminal = lint(tmp_path, *there, flags="--strict")
    assert code is Exit.ERROR
    assert "next:" not in terminal.progress.getvalue()


def test_a_finding_names_its_line(tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    file.write_text(
        "kind: List\napiVersion: v1\nitems:\n"
        f"- apiVersion: {API}\n  kind: Override\n  metadata: {{name: o}}\n"
        "  spec:\n    targetRef: {kind: Expert, name: e}\n    action: Dance\n    action: Serve\n"
    )
    broken = tmp_path / "broken.yaml"
    broken.write_text("kind: Expert\nmetadata: {name: a\n")
    terminal = Terminal()
    assert terminal.run(f"lint {tmp_path} -o json") is Exit.ERROR
    said = json.loads(terminal.out.getvalue())
    places = [(found["source"], found["line"], found["field"]) for found in said["findings"]]
    assert places == [(str(broken), 3, ""), (str(file), 9, "spec.action")]


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no file that ends in"):
        Terminal().run(f"lint {tmp_path}")
    with pytest.raises(UsageError, match=r"absent\.yaml cannot be read"):
        Terminal().run(f"lint {tmp_path}/absent.yaml")


def test_a_server_is_asked_for_what_is_sound_so_far(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(
        yaml.safe_dump_all([expert("e0"), expert("e1"), expert("e2", role="Chief")])
    )
    terminal = Terminal()
    terminal.cluster.refuses = {"tiny-e1": "an expert cannot be its own backup"}
    assert terminal.run(f"lint {tmp_path} --server") is Exit.ERROR
    asked = [(body["metadata"]["name"], dry) for body, dry in terminal.cluster.applied]
    assert asked == [("tiny-e0", True), ("tiny-e1", True)]
    assert terminal.lines()[1].endswith("cannot be its own backup (422)")


def test_a_real_server_says_what_only_it_knows(kube_server: KubeServer, namespace: str) -> None:
    with closing(connect(str(kube_server.kubeconfig(namespace)), None, None, 30)) as cluster:
        see_what_is_applied(cluster, kube_server)
        with pytest.raises(ClusterError, match="an expert cannot be its own backup"):
            cluster.apply(expert(backupExpertId="e0"), dry_run=True)
        with pytest.raises(ClusterError, match=r"spec\.versoin"):
            cluster.apply(expert(versoin="v2"), dry_run=True)


def see_what_is_applied(cluster: ApiCluster, server: KubeServer) -> None:
    """See that a dry run leaves nothing behind, and that a part changes only what it has."""
    cluster.apply(expert(), dry_run=True)
    path = f"/apis/{API}/namespaces/{cluster.namespace}/experts"
    server.request("POST", path, expert())  # fails, had the dry run made it
    artifact = {"uri": "file:///e2", "sha256": bodies.sha("v2")}
    part = {**expert(), "spec": {"version": "v2", "artifact": artifact}}
    changed = cluster.apply(part)
    assert changed["spec"] == {**changed["spec"], **expert()["spec"], **part["spec"]}


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        (
            {"type": "integer", "format": "int32"},
            2**31,
            [f"is {2**31}; it must be {2**31 - 1} or less"],
        ),
        ({"type": "integer"}, True, ["is true; it must be a whole number"]),
        ({"type": "integer"}, 1.5, ["is 1.5; it must be a whole number"]),
        ({"type": "number", "minimum": 1}, 0.5, ["is 0.5; it must be 1 or more"]),
        ({"type": "string", "maxLength": 2}, "abc", ["has 3 characters; it must have 2 or fewer"]),
        ({"type": "array", "minItems": 1}, [], ["has 0 items; it must have 1 or more"]),
        ({"type": "array"}, {}, ["is an object; it must be a list"]),
        ({"type": "object"}, [], ["is a list; it must be an object"]),
        ({"type": "string"}, None, ["is empty; leave it out, or give it a value"]),
        ({"type": "string", "nullable": True}, None, []),
        ({"x-kubernetes-int-or-string": True}, "50%", []),
        (
            {"x-kubernetes-int-or-string": True},
            [],
            ["is a list; it must be a whole number or a string"],
        ),
        (
            {"type": "object", "additionalProperties": {"type": "string"}},
            {"a": 1},
            ["is 1; it must be a string"],
        ),
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, {"a": 1}, []),
        ({"type": "object", "properties": {}}, {"a": 1}, ["is no field; there are none"]),
    ],
)  # fmt: skip
def test_what_a_schema_says(schema: Body, value: Any, expected: list[str]) -> None:
    assert [fault.text for fault in check(value, schema)] == expected


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["spec", "layers", "version", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(plain)
def test_whatever_is_written_is_answered(value: Any) -> None:
    crd = yaml.safe_load((ROOT / "crds" / "experts.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for fault in check({"spec": value}, schema):
        assert dotted(fault.field).startswith("spec")
        assert fault.text
