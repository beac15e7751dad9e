"""The reference of the programs' settings, `docs/reference/settings.md`, made of their parsers."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from moe_core.tracing_settings import ENDPOINTS, VARIABLES
from moe_operator import options as operator
from moe_operator.pod import LEFT_TO_PEOPLE
from moe_router import settings as router
from moe_worker import settings as worker
from tests.reference.commands import arguments, wording
from tests.reference.markdown import MADE, code, page, prose, table

LEFT: Final = ", ".join(f"`{name}`" for name in sorted(LEFT_TO_PEOPLE))
PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
_HEAD: Final = f"""\
# Settings of the programs

{MADE}

Each flag has an environment variable; the flag wins. What is malformed ends a program at its \
start, with a sentence. The operator sets those of routers and workers; of them a Mixture's `env` \
may set {LEFT} alone. The chart's \
[values](../../charts/moeops/README.md) set the operator's."""
_TRACES: Final = f"""\
## Traces
Routers and workers read the variables of OpenTelemetry; a Mixture's `env` sets them: \
[how to trace a request](../how-to/trace-a-request.md). `{ENDPOINTS[0]}` wins over \
`{ENDPOINTS[1]}`. The SDK itself reads `OTEL_EXPORTER_OTLP_HEADERS`, `…_CERTIFICATE`, \
`…_TIMEOUT`, `…_COMPRESSION` and `OTEL_BSP_*`."""

# How a help ends: [VARIABLE], [VARIABLE; default X], [VARIABLE; required]
_HELP: Final = re.compile(
    r"(?P<what>.+?) \[(?P<variable>[A-Z_]+)"
    r"(; (default (?P<default>.+)|(?P<required>required)))?\]"
)


def programs() -> tuple[argparse.ArgumentParser, ...]:
    """Return the parsers as they are where no variable is set."""
    return router.parser(), worker.parser(), operator.parser({})


def text() -> str:
    """Return the page as it is to be."""
    lines = [line for program in programs() for line in _program(program)]
    return page([_HEAD, *lines, "", _TRACES, *_traces()])


def _traces() -> Iterator[str]:
    rows = ((code(name), code(default), what) for name, default, what in VARIABLES)
    yield from table(("variable", "default", "what"), rows)


def _program(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from ("", f"## {parser.prog}", prose(parser.description or ""))
    rows = (_row(action) for action in arguments(parser))
    yield from table(("flag", "variable", "default", "what"), rows)


def _row(action: argparse.Action) -> tuple[str, ...]:
    flag, said = action.option_strings[-1], wording(action)
    found = _HELP.fullmatch(said)
    if found is None:
        raise ValueError(f"the help of {flag} is {said!r}; it must end with [VARIABLE; default X]")
    default = found["required"] or code(found["default"] or "")
    return code(flag), code(found["variable"]), default, prose(found["what"])
