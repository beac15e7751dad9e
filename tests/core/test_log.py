"""Lines of logs: events and what libraries log, as text and as JSON."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moe_core.log import Form, Lines, read_form


def record(message: str, level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("some.library", level, "file.py", 1, message, (), None)
    made.created = 1_790_000_000.25
    for name, value in extra.items():
        setattr(made, name, value)
    return made


AT = "2026-09-21T14:13:20.250Z"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        pytest.param({}, "", id="no fields"),
        pytest.param(
            {"address": "10.0.0.7:7100", "rows": 3}, " address=10.0.0.7:7100 rows=3", id="plain"
        ),
        pytest.param({"address": "[::1]:7"}, " address=[::1]:7", id="an address of IPv6"),
        pytest.param({"experts": ["e0", "e1"]}, " experts=e0,e1", id="a list"),
        pytest.param({"reason": 'no "x"'}, r' reason="no \"x\""', id="quotes"),
        pytest.param({"reason": "a\nb"}, r' reason="a\nb"', id="a line is one line"),
        pytest.param({"reason": ""}, ' reason=""', id="nothing"),
        pytest.param({"file": Path("/a/b")}, " file=/a/b", id="any object"),
        pytest.param({"trace_id": "ab", "span_id": "cd"}, " trace_id=ab span_id=cd", id="a trace"),
    ],
)
def test_an_event_is_one_line_either_way(fields: dict[str, Any], text: str) -> None:
    event = record("link_up", fields=fields)
    assert Lines(Form.TEXT).format(event) == f"{AT} INFO event=link_up{text}"
    line = Lines(Form.JSON).format(event)
    assert "\n" not in line
    read = json.loads(line)
    assert {name: read.pop(name) for name in ("time", "level", "event")} == {
        "time": AT,
        "level": "INFO",
        "event": "link_up",
    }
    expected = {k: v if isinstance(v, int | str | list) else str(v) for k, v in fields.items()}
    assert read == expected


def test_what_a_library_logs_says_whose_it_is() -> None:
    said = record("it is late", logging.WARNING)
    assert Lines(Form.TEXT).format(said) == (
        f'{AT} WARNING event=library logger=some.library message="it is late"'
    )
    assert json.loads(Lines(Form.JSON).format(said)) == {
        "time": AT,
        "level": "WARNING",
        "event": "library",
        "logger": "some.library",
        "message": "it is late",
    }


@pytest.mark.parametrize("form", list(Form))
def test_an_error_comes_with_where_it_was_raised(form: Form) -> None:
    try:
        raise KeyError("x")
    except KeyError:
        said = record("bug", logging.ERROR, fields={}, exc_info=sys.exc_info())
    line = Lines(form).format(said)
    assert "test_log.py" in line
    assert "KeyError: 'x'" in line
    if form is Form.JSON:
        assert json.loads(line)["traceback"].startswith("Traceback")


def test_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match="it must be one of text, json"):
        read_form("xml")


@pytest.mark.parametrize(
    ("program", "flag"),
    [
        (["moe_router", "--mixture", "m"], "--log-format"),
        (["moe_worker", "--hidden-size", "8"], "MOE_LOG_FORMAT"),
        (["moe_operator", "--worker-image", "w", "--router-image", "r"], "--log-format"),
    ],
)
def test_every_program_refuses_it_with_what_would_be_right(program: list[str], flag: str) -> None:
    command = [sys.executable, "-m", *program]
    done = subprocess.run(
        command,
        env={"MOE_LOG_FORMAT": "xml"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"{flag}" in done.stderr
    assert "'xml'; it must be one of text, json" in done.stderr.replace("'xml': ", "'xml'; ")
