"""Flags and environment of the router, right and wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from moe_core.metrics_settings import Detail
from moe_router.settings import BadSetting, parse


def test_a_mixture_alone_is_enough() -> None:
    settings = parse(["--mixture", "tiny"], {})

    assert settings.listen == "0.0.0.0:7000"
    assert settings.namespace == "default"
    assert settings.table_file is None
    assert settings.workers is None
    assert settings.cache is None
    assert settings.name
    assert settings.metrics == ("0.0.0.0", 7002)
    assert settings.metrics_detail is Detail.ROLLUP


def test_metrics_can_be_elsewhere_nowhere_or_in_full() -> None:
    moved = parse(["--mixture", "m", "--metrics", "[::1]:9"], {"MOE_METRICS_DETAIL": "Full"})
    assert (moved.metrics, moved.metrics_detail) == (("::1", 9), Detail.FULL)
    assert parse(["--mixture", "m"], {"MOE_METRICS": "none"}).metrics is None


def test_the_environment_is_read_and_a_flag_wins() -> None:
    environment = {
        "MOE_MIXTURE": "tiny",
        "POD_NAMESPACE": "models",
        "MOE_WORKERS": "a:1, unix:/run/w.sock,",
        "MOE_CACHE": "/cache",
        "POD_NAME": "r-0",
        "NODE_NAME": "n1",
    }

    settings = parse(["--namespace", "other", "--table-file", "t.yaml"], environment)

    assert settings.mixture == "tiny"
    assert settings.namespace == "other"
    assert settings.workers == ("a:1", "unix:/run/w.sock")
    assert settings.table_file == Path("t.yaml")
    assert settings.cache == Path("/cache")
    assert (settings.name, settings.node) == ("r-0", "n1")


def test_tls_is_off_without_a_folder() -> None:
    settings = parse(["--mixture", "tiny"], {})
    assert settings.tls is None
    assert (settings.listen_tls, settings.health) == ("0.0.0.0:7443", "0.0.0.0:7003")
    assert settings.operator == "moeops-operator.moeops-system.svc"
    given = parse(["--mixture", "m", "--workers", "tls:[::1]:1,b:2"], {"MOE_TLS": "/etc/tls"})
    assert (given.tls, given.workers) == (Path("/etc/tls"), ("tls:[::1]:1", "b:2"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        pytest.param([], "--mixture (MOE_MIXTURE) is missing", id="no mixture"),
        pytest.param(["--listen", "7000"], "--listen is '7000'; it must be HOST:PORT", id="port"),
        pytest.param(["--listen", "h:99999"], "--listen is 'h:99999'", id="port too high"),
        pytest.param(["--listen", "unix:"], "--listen is 'unix:'", id="no path"),
        pytest.param(["--workers", "a:1,b"], "--workers is 'b'", id="a worker without port"),
        pytest.param(["--workers", "tls:a"], "--workers is 'a'", id="TLS without port"),
        pytest.param(["--listen-tls", "7443"], "--listen-tls is '7443'", id="TLS port"),
        pytest.param(["--health", "none"], "--health is 'none'", id="health"),
        pytest.param(["--max-rows", "none"], "--max-rows is 'none'; it must be a", id="rows"),
        pytest.param(["--max-rows", "0"], "--max-rows is '0'", id="no rows"),
        pytest.param(["--drain-seconds", "-1"], "--drain-seconds is '-1'", id="back in time"),
        pytest.param(["--metrics", "7002"], "--metrics is '7002'; it must be HOST", id="metrics"),
        pytest.param(["--metrics-detail", "All"], "one of Rollup, Full", id="detail"),
        pytest.param(["--deadline-seconds", "nan"], "--deadline-seconds is 'nan'", id="no number"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(flags: list[str], words: str) -> None:
    mixture = ["--mixture", "tiny"] if flags else []

    with pytest.raises(BadSetting) as caught:
        parse([*mixture, *flags], {})

    assert words in str(caught.value)
