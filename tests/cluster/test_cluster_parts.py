"""What the machine says is read rightly, and what is applied is what is meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster import daemon, environment, golang, helm, install, kind, node_image
from cluster import images as cluster_images
from cluster.places import Places

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / ".venv" / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    return Places.of(tmp_path, {"HOME": str(tmp_path), "MOE_LOCAL_NODES": "3"})


@pytest.mark.parametrize(
    ("status", "lacking"),
    [
        pytest.param("CapBnd:\t000001ffffffffff\n", False, id="all"),
        pytest.param("CapBnd:\t000001fffeffffff\n", True, id="all but that"),
        pytest.param("CapEff:\t0\nCapBnd:\t000001ffffffffff\n", False, id="bounding set counts"),
        pytest.param("Name:\tx\n", False, id="not told"),
    ],
)
def test_a_machine_that_lacks_a_capability(status: str, lacking: bool) -> None:
    assert daemon.lacks_capability(status, daemon.CAP_SYS_RESOURCE) is lacking


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("go version go1.26.8 linux/amd64\n", (1, 26)),
        ("go version go1.9 linux/arm64\n", (1, 9)),
        ("go version devel go1.27-abc linux/amd64\n", (1, 27)),
        ("command not found", None),
    ],
)
def test_versions_of_go(said: str, version: tuple[int, int] | None) -> None:
    assert golang.parse_version(said) == version


def test_uv_follows_what_pip_was_told() -> None:
    listing = (
        ":env:.find-links='/wheels /more'\n"
        "global.find-links='/old'\n"
        "global.index-url='https://packages.example/simple'\n"
        "global.cert='/etc/ca.crt'\n"
        "user.unknown='x'\n"
    )
    assert environment.uv_variables(environment.pip_settings(listing)) == {
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_DEFAULT_INDEX": "https://packages.example/simple",
        "SSL_CERT_FILE": "/etc/ca.crt",
    }


def test_an_environment_is_made_anew_when_the_lock_changes(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("a==1")
    before = environment.digest([lock])
    assert environment.digest([lock]) == before
    lock.write_text("a==2")
    assert environment.digest([lock]) != before


def test_nodes_mount_the_packages_where_the_host_has_them(places: Places) -> None:
    config = kind.config(places)
    roles = [node["role"] for node in config["nodes"]]
    assert roles == ["control-plane", "worker", "worker", "worker"]
    for worker in config["nodes"][1:]:
        mounts = {mount["containerPath"]: mount for mount in worker["extraMounts"]}
        site = mounts[str(places.site_packages)]
        assert site["hostPath"] == str(places.site_packages)
        assert mounts[kind.ARTIFACTS_IN_NODE]["hostPath"] == str(places.artifacts)
        assert all(mount["readOnly"] for mount in mounts.values())


def test_the_audit_policy_is_where_the_api_server_looks(places: Places) -> None:
    config = kind.config(places)
    patch = json.loads(config["kubeadmConfigPatches"][0])
    arguments = {a["name"]: a["value"] for a in patch["apiServer"]["extraArgs"]}
    mounts = {m["containerPath"]: m["hostPath"] for m in config["nodes"][0]["extraMounts"]}
    folder, _, name = arguments["audit-policy-file"].rpartition("/")
    assert (ROOT / Path(mounts[folder]).relative_to(places.root) / name).exists()
    assert mounts[arguments["audit-log-path"].rpartition("/")[0]] == str(places.audit)


def test_the_node_image_is_known_by_its_sources(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    before = node_image.sources_digest(tmp_path)
    assert node_image.sources_digest(tmp_path) == before
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = node_image.sources_digest(tmp_path)
    (tmp_path / "b").write_text("two")
    assert len({before, renamed, node_image.sources_digest(tmp_path)}) == 3


IMAGES = {name: f"moeops/{name}:0123" for name in cluster_images.PROGRAMS}


def test_the_chart_is_told_the_image_of_each_program() -> None:
    assert install.values(IMAGES) == {"images": IMAGES}
    with pytest.raises(ValueError, match="no image was built of router; run: make images"):
        install.values({**IMAGES, "router": ""})


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ("v3.22.0\n", True),
        ("v3.17.1+g980d8ac", True),
        ("v3.16.4+g7877b45", False),
        ("v4.0.1+gabcdef0", False),
        ("command not found", False),
    ],
)
def test_which_helm_is_taken(said: str, taken: bool) -> None:
    assert helm.usable(helm.parse_version(said)) is taken


def test_a_mounted_folder_is_bound_to_one_claim_both_ways() -> None:
    volume, claim = install.mounted_folder("moe", "moeops-artifacts", "/moe/artifacts")["items"]
    bound = volume["spec"]["claimRef"]
    assert (bound["namespace"], bound["name"]) == ("moe", claim["metadata"]["name"])
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    for spec in (volume["spec"], claim["spec"]):
        assert (spec["accessModes"], spec["storageClassName"]) == (["ReadOnlyMany"], "")
