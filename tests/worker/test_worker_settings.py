"""Flags and variables: what is read, and how what is wrong is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moe_core.dtypes import BFLOAT16, FLOAT32
from moe_core.metrics_settings import Detail
from moe_worker.address import Address
from moe_worker.assignment import Assigned
from moe_worker.settings import parse

SHA = "ab" * 32
ONE = {"expertId": "e0", "version": "v1", "uri": "file:///a", "sha256": SHA, "layers": [1, 0]}


def assignment(**changes: object) -> str:
    return json.dumps([{**ONE, **changes}])


def test_all_but_the_hidden_size_has_a_default() -> None:
    settings = parse(["--hidden-size", "64"], {})
    assert settings.assignment == ()
    assert settings.hidden_size == 64
    assert settings.dtype is BFLOAT16
    assert settings.exact
    assert settings.link == Address("0.0.0.0", 7100)
    assert settings.control == Address("0.0.0.0", 7101)
    assert settings.cache == Path("/var/cache/moeops")
    assert settings.name
    assert settings.mixture == ""
    assert settings.metrics == ("0.0.0.0", 7102)
    assert settings.metrics_detail is Detail.ROLLUP


def test_metrics_can_be_elsewhere_nowhere_or_in_full() -> None:
    environment = {"MOE_METRICS": "none", "MOE_METRICS_DETAIL": "Full", "MOE_MIXTURE": "tiny"}
    settings = parse(["--hidden-size", "64"], environment)
    assert (settings.metrics, settings.metrics_detail) == (None, Detail.FULL)
    assert settings.mixture == "tiny"
    assert parse(["--hidden-size=64", "--metrics=h:9"], environment).metrics == ("h", 9)


def test_tls_is_off_without_a_folder_and_names_who_may_come() -> None:
    assert parse(["--hidden-size", "64"], {}).tls is None
    environment = {"MOE_TLS": "/etc/tls", "MOE_MIXTURE": "tiny", "POD_NAMESPACE": "moe"}
    settings = parse(["--hidden-size", "64", "--operator", "o.system.svc"], environment)
    assert settings.tls == Path("/etc/tls")
    assert settings.routers == "tiny-router.moe.svc"
    assert settings.operator == "o.system.svc"
    assert settings.health == Address("0.0.0.0", 7103)


def test_variables_are_read_and_flags_win() -> None:
    environment = {
        "MOE_ASSIGNMENT": assignment(),
        "MOE_HIDDEN_SIZE": "64",
        "MOE_DTYPE": "Float32",
        "MOE_NUMERICS": "Fast",
        "MOE_LINK": "unix:/run/link",
        "POD_NAME": "pod",
        "NODE_NAME": "node",
    }
    settings = parse(["--hidden-size=128", "--link=[::1]:70"], environment)
    assert settings.assignment == (Assigned("e0", "v1", "file:///a", SHA, (0, 1)),)
    assert (settings.hidden_size, settings.dtype, settings.exact) == (128, FLOAT32, False)
    assert settings.link == Address("::1", 70)
    assert (settings.name, settings.node) == ("pod", "node")


def test_addresses_are_written_as_they_are_read() -> None:
    for text in ("0.0.0.0:7100", "[::]:0", "unix:/run/a.sock", "worker.local:65535"):
        assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    ("flag", "value", "sentence"),
    [
        ("hidden-size", "0", "--hidden-size is '0': it must be a whole number from 1 to 65536"),
        ("hidden-size", "wide", "it must be a whole number"),
        ("hidden-size", "١٢", "it must be a whole number"),
        ("dtype", "bf16", "--dtype is 'bf16': dtype is 'bf16'; it must be one of Float32"),
        ("numerics", "exact", "it must be one of Exact, Fast"),
        ("metrics", "7102", "--metrics is '7102': it must be HOST:PORT, or none for no port"),
        ("metrics-detail", "All", "it must be one of Rollup, Full"),
        ("link", "7100", "it must be host:port or unix:/path"),
        ("link", "host:99999", "it must be host:port or unix:/path"),
        ("link", "::1:7100", "it must be host:port or unix:/path"),
        ("control", "unix:relative", "it must be unix:/path, absolute"),
        ("control", "unix:/" + "a" * 200, "at most 100 bytes"),
        ("cache", "here", "it must be an absolute path"),
        ("batch-rows", "-1", "it must be a whole number from 1"),
        ("queue-rows", "1e9", "it must be a whole number from 1"),
        ("drain-seconds", "soon", "it must be seconds from 0 to 3600"),
        ("drain-seconds", "nan", "it must be seconds from 0 to 3600"),
        ("assignment", "{", "it is not JSON"),
        ("assignment", "{}", "it must be a list of objects"),
        ("assignment", "[1]", "[0] is 1; it must be an object"),
        ("assignment", assignment(sha256="AB" * 32), "[0].sha256 is"),
        ("assignment", assignment(sha256="sha256:" + SHA), "64 lower-case hexadecimal digits"),
        ("assignment", assignment(expertId=""), "[0].expertId is empty"),
        ("assignment", assignment(expertId=7), "[0].expertId is 7; it must be text"),
        ("assignment", assignment(uri=None), "[0].uri is None; it must be text"),
        ("assignment", assignment(layers=[0, 0]), "different numbers from 0 to 1023"),
        ("assignment", assignment(layers=[-1]), "[0].layers is [-1]"),
        ("assignment", assignment(layers=["0"]), "[0].layers[0] is '0'; it must be a whole number"),
        ("assignment", json.dumps([ONE, ONE]), "is there 2 times"),
    ],
)
def test_a_wrong_flag_or_variable_ends_with_a_sentence(
    flag: str, value: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--hidden-size=64", f"--{flag}={value}"], {})
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert f"--{flag}" in error.splitlines()[-1]
    variable = {"cache": "MOE_CACHE", "link": "MOE_LINK"}.get(flag)
    if variable:
        with pytest.raises(SystemExit):
            parse(["--hidden-size=64"], {variable: value})
        assert variable in capsys.readouterr().err.splitlines()[-1]


def test_a_missing_hidden_size_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([], {})
    assert "--hidden-size (or MOE_HIDDEN_SIZE) is missing" in capsys.readouterr().err


def test_help_names_every_flag_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"], {})
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for name in ("--assignment", "MOE_ASSIGNMENT", "--cache", "MOE_DRAIN_SECONDS", "POD_NAME"):
        assert name in text
