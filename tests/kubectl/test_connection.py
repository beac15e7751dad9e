"""How the plugin finds and asks an API server: directly, or by the library."""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_moe import kubeconfig
from kubectl_moe.cluster import ApiCluster, ClusterError, NotFound, who
from kubectl_moe.connection import connect
from kubectl_moe.direct import Direct
from tests.kube.server import KubeServer
from tests.kubectl.api import Api, serving


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with serving(tmp_path) as api:
        yield api


def config(api: Api, folder: Path, user: Mapping[str, Any], **cluster: Any) -> str:
    """Write a kubeconfig; the fields of `cluster` with _ for -."""
    fields = {name.replace("_", "-"): value for name, value in cluster.items()}
    server = {"server": api.url, "certificate-authority": api.certificate.name, **fields}
    body = {
        "current-context": "here",
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "moe"}},
            {"name": "there", "context": {"cluster": "c", "user": "u"}},
        ],
        "clusters": [{"name": "c", "cluster": server}],
        "users": [{"name": "u", "user": dict(user)}],
    }
    path = folder / "config"
    path.write_text(yaml.safe_dump(body))
    return str(path)


def ask(path: str) -> None:
    with closing(connect(path, None, None, 5)) as cluster:
        assert cluster.get("Mixture", "tiny")["metadata"]["name"] == "tiny"


def token_of_a_program(token: str) -> dict[str, Any]:
    """Return a user whose token an exec plugin says."""
    api_version = "client.authentication.k8s.io/v1"
    said = {"apiVersion": api_version, "kind": "ExecCredential", "status": {"token": token}}
    arguments = ["-c", f"print({json.dumps(said)!r})"]
    return {
        "exec": {
            "apiVersion": api_version,
            "command": sys.executable,
            "args": arguments,
            "interactiveMode": "Never",
        }
    }


def test_a_token_goes_along_with_each_request(api: Api, tmp_path: Path) -> None:
    with closing(connect(config(api, tmp_path, {"token": "secret"}), None, None, 5)) as cluster:
        cluster.get("Mixture", "tiny")
        cluster.list("Pod", "a=b,!c")
    path = "/apis/moeops.dev/v1alpha1/namespaces/moe/mixtures/tiny"
    assert [asked.authorization for asked in api.asked] == ["Bearer secret"] * 2
    assert [asked.path for asked in api.asked] == [
        path,
        "/api/v1/namespaces/moe/pods?labelSelector=a%3Db%2C%21c",
    ]


def test_a_client_certificate_is_shown_from_files_and_from_data(api: Api, tmp_path: Path) -> None:
    ask(config(api, tmp_path, {"client-certificate": "api.crt", "client-key": str(api.key)}))
    ask(
        config(
            api,
            tmp_path,
            {
                "client-certificate-data": b64encode(api.certificate.read_bytes()).decode(),
                "client-key-data": b64encode(api.key.read_bytes()).decode(),
            },
            certificate_authority_data=b64encode(api.certificate.read_bytes()).decode(),
        )
    )
    assert [asked.certified for asked in api.asked] == [True, True]


def test_what_is_not_plain_is_asked_by_the_library(api: Api, tmp_path: Path) -> None:
    ask(config(api, tmp_path, token_of_a_program("of a program")))
    (tmp_path / "token").write_text("of a file")
    ask(config(api, tmp_path, {"tokenFile": "token"}))
    said = [asked.authorization for asked in api.asked]
    assert said == ["Bearer of a program", "Bearer of a file"]


def test_a_part_of_an_object_is_applied_alike_by_both(api: Api, tmp_path: Path) -> None:
    for user in ({"token": "secret"}, token_of_a_program("secret")):
        with closing(connect(config(api, tmp_path, user), None, None, 5)) as cluster:
            cluster.apply({"kind": "Expert", "metadata": {"name": "e"}}, dry_run=True)
    direct, library = api.asked
    assert direct == library
    assert (direct.method, direct.content_type) == ("PATCH", "application/apply-patch+yaml")
    assert direct.path == (
        "/apis/moeops.dev/v1alpha1/namespaces/moe/experts/e"
        "?fieldManager=kubectl-moe&force=true&fieldValidation=Strict&dryRun=All"
    )


def test_a_server_that_is_not_trusted_is_not_asked(api: Api, tmp_path: Path) -> None:
    path = config(api, tmp_path, {"token": "secret"}, certificate_authority=None)
    with pytest.raises(ClusterError, match="certificate verify failed"):
        ask(path)
    ask(config(api, tmp_path, {"token": "a"}, insecure_skip_tls_verify=True))
    assert [asked.authorization for asked in api.asked] == ["Bearer a"]


def test_a_read_is_asked_again_where_the_server_hung_up_and_a_write_is_not(
    api: Api, tmp_path: Path
) -> None:
    with closing(connect(config(api, tmp_path, {"token": "secret"}), None, None, 5)) as cluster:
        cluster.get("Mixture", "tiny")
        api.hang_up = True
        cluster.get("Mixture", "tiny")
        api.hang_up = True
        with pytest.raises(ClusterError, match="does not answer"):
            cluster.create({"kind": "Override", "metadata": {"name": "x"}})
    assert [asked.method for asked in api.asked] == ["GET", "GET", "GET", "POST"]


def test_the_namespace_is_that_of_the_flag_else_of_the_context(api: Api, tmp_path: Path) -> None:
    path = config(api, tmp_path, {"token": "secret"})
    assert connect(path, None, None, 5).namespace == "moe"
    assert connect(path, "there", None, 5).namespace == "default"
    assert connect(path, "there", "mine", 5).namespace == "mine"


@pytest.mark.parametrize(
    ("user", "cluster", "environ"),
    [
        pytest.param({"exec": {}}, {}, {}, id="exec plugin"),
        pytest.param({"auth-provider": {}}, {}, {}, id="auth provider"),
        pytest.param({"username": "a", "password": "b"}, {}, {}, id="password"),
        pytest.param({"client-certificate": "api.crt"}, {}, {}, id="certificate without a key"),
        pytest.param({"client-key-data": "no base64!"}, {}, {}, id="data that cannot be read"),
        pytest.param({}, {"proxy_url": "http://proxy"}, {}, id="proxy of the cluster"),
        pytest.param({}, {"tls_server_name": "other"}, {}, id="server's name"),
        pytest.param({}, {"server": "http://127.0.0.1:1"}, {}, id="no TLS"),
        pytest.param({}, {"server": "https://127.0.0.1:x"}, {}, id="no port"),
        pytest.param({}, {"certificate_authority": "absent"}, {}, id="file that is not there"),
        pytest.param({}, {}, {"https_proxy": "http://proxy"}, id="proxy of the environment"),
    ],
)
def test_what_is_not_plain_is_left_to_the_library(
    api: Api,
    tmp_path: Path,
    user: dict[str, Any],
    cluster: dict[str, Any],
    environ: dict[str, str],
) -> None:
    assert kubeconfig.read(config(api, tmp_path, user, **cluster), None, environ) is None


def test_several_files_and_files_that_are_none_are_left_to_the_library(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("")
    for path in (f"{empty}:{empty}", str(empty), str(tmp_path / "absent")):
        assert kubeconfig.read(None, None, {"KUBECONFIG": path}) is None
    with pytest.raises(ClusterError, match="no cluster to talk to"):
        connect(str(empty), None, None, 5)


def test_a_real_api_server_is_asked_directly(kube_server: KubeServer, namespace: str) -> None:
    path = str(kube_server.kubeconfig(namespace))
    access = kubeconfig.read(path, None, {})
    assert access is not None
    with closing(ApiCluster(Direct(access, 10), access.namespace)) as cluster:
        assert (cluster.namespace, who(cluster)) == (namespace, "admin")
        spec = {"action": "Pause", "insteadOf": "v1", "targetRef": {"kind": "Expert", "name": "e0"}}
        made = cluster.create(
            {
                "apiVersion": "moeops.dev/v1alpha1",
                "kind": "Override",
                "metadata": {"generateName": "e0-pause-"},
                "spec": {**spec, "requestedBy": who(cluster)},
            }
        )
        name = made["metadata"]["name"]
        assert [each["metadata"]["name"] for each in cluster.list("Override")] == [name]
        cluster.delete("Override", name)
        for gone in (name, "of-many-names"):  # the end of a name says nothing
            with pytest.raises(NotFound, match=f"no Override {gone} in namespace {namespace}"):
                cluster.get("Override", gone)
        made["metadata"] = {"name": "o", "namespace": "nowhere"}
        with pytest.raises(NotFound, match="there is no namespace nowhere"):
            cluster.apply(made)
        with pytest.raises(ClusterError, match=r"does not know moeops.dev/v1alpha1"):
            cluster.list("Unheard")
        with pytest.raises(ClusterError, match=r"action.*\(422\)"):
            cluster.create({**made, "metadata": {"name": "x"}, "spec": {**spec, "action": "Dance"}})


def test_nothing_heavy_is_imported_where_it_is_not_needed() -> None:
    program = "import sys, kubectl_moe.__main__; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    heavy = {"kubernetes", "urllib3", "requests", "kopf", "aiohttp", "numpy", "torch", "pydantic"}
    assert not heavy & set(done.stdout.split())
