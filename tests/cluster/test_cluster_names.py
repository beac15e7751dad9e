"""Two checkouts never meet, and what the user says wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.places import Places

HOME = {"HOME": "/home/ann"}


def test_two_checkouts_have_two_clusters(tmp_path: Path) -> None:
    one, two = (Places.of(tmp_path / name, HOME) for name in ("one", "two"))
    assert one.cluster != two.cluster
    assert one.kubeconfig != two.kubeconfig
    assert one.cache == two.cache == Path("/home/ann/.cache/moeops")


def test_a_link_to_a_checkout_is_that_checkout(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Places.of(tmp_path / "link", HOME) == Places.of(tmp_path / "real", HOME)


def test_a_cluster_name_is_one_that_hosts_may_have(tmp_path: Path) -> None:
    places = Places.of(tmp_path / "With Space_and_Ünïcode", HOME)
    assert places.cluster.isascii()
    assert places.cluster.replace("-", "").isalnum()
    assert places.cluster == places.cluster.lower()
    assert len(f"{places.cluster}-control-plane") <= 63


@pytest.mark.parametrize(
    ("env", "cache"),
    [
        pytest.param({"XDG_CACHE_HOME": "/var/x"}, "/var/x/moeops", id="cache of the desktop"),
        pytest.param(
            {"XDG_CACHE_HOME": "/var/x", "MOE_LOCAL_CACHE": "/big/moe"},
            "/big/moe",
            id="cache that was asked for",
        ),
        pytest.param({"XDG_CACHE_HOME": ""}, "/home/ann/.cache/moeops", id="empty is not set"),
    ],
)
def test_where_the_cache_is(tmp_path: Path, env: dict[str, str], cache: str) -> None:
    assert Places.of(tmp_path, HOME | env).cache == Path(cache)


@pytest.mark.parametrize("count", ["0", "10", "two", "", "-1", "1.5"])
def test_a_number_of_nodes_that_cannot_be(tmp_path: Path, count: str) -> None:
    with pytest.raises(ValueError, match=r"MOE_LOCAL_NODES is .*; it must be a number from 1 to 9"):
        Places.of(tmp_path, HOME | {"MOE_LOCAL_NODES": count})


def test_an_environment_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run: make venv"):
        _ = Places.of(tmp_path, HOME).site_packages
