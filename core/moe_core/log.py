"""Writes one line for each decision to stderr, for all programs: as text, or as JSON.

    2026-11-26T12:00:00.000Z INFO event=link_up address=10.0.0.7:7100 worker=e3-5d9c
    {"time": "2026-11-26T12:00:00.000Z", "level": "INFO", "event": "link_up", "address": "10.0.…"}

An event is a name, its fields say what happened to whom, and in which trace where there is one
(`trace_id`, `span_id`); never what rows held. What libraries log comes out as event `library`.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Protocol, TextIO

_LOGGER: Final = logging.getLogger("moeops")
_PLAIN: Final = re.compile(r"[\w./:+@%,\[\]-]+")


class Form(StrEnum):
    """Of lines."""

    TEXT = "text"
    JSON = "json"


class Log(Protocol):
    """Takes an event and its fields; `tell` is one."""

    def __call__(self, event: str, **fields: Any) -> None: ...


def read_form(text: str) -> Form:
    """Read it. Raises ValueError, which says what would be right."""
    if text not in set(Form):
        raise ValueError(f"it must be one of {', '.join(Form)}")
    return Form(text)


def write_to_stderr(form: Form, level: int | str = logging.INFO) -> None:
    """Have lines written to stderr from now on, each at once, so that threads do not mix theirs."""
    handler = _ToStderr()
    handler.setFormatter(Lines(form))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def tell(event: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Write a line about an event."""
    if _LOGGER.isEnabledFor(level):
        _LOGGER.log(level, event, extra={"fields": fields})


def tell_error(event: str, **fields: Any) -> None:
    """Write a line about what nobody thought of, with where it was raised; to be called there."""
    _LOGGER.error(event, exc_info=True, extra={"fields": fields})


class _ToStderr(logging.StreamHandler[TextIO]):
    """Writes to what is stderr then, as one may put another stream in its place."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class Lines(logging.Formatter):
    """Makes lines of events, and of what libraries log."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        said = {"event": "library", "logger": record.name, "message": record.getMessage()}
        fields = getattr(record, "fields", None)
        if fields is not None:
            said = {"event": record.msg, **fields}
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        if self._form is Form.JSON:
            known = {"time": at, "level": record.levelname, **said}
            return json.dumps(
                known | ({"traceback": trace} if trace else {}), default=str, ensure_ascii=False
            )
        pairs = " ".join(f"{name}={_quote(value)}" for name, value in said.items())
        return f"{at} {record.levelname} {pairs}" + (f"\n{trace}" if trace else "")


def _quote(value: Any) -> str:
    """Return a value as text; what is not a plain word is quoted as in JSON."""
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
