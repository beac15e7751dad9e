"""Draws the dashboards as a Prometheus has their numbers: one SVG each, and a page of them.

`python -m dashboards.pictures --prometheus http://127.0.0.1:9090 --out docs/dashboards`. Ends with
1 where the Prometheus does not answer.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from dashboards.pictures.choices import ALL, built_in, filled, natural
from dashboards.pictures.page import Answers, draw
from dashboards.pictures.prometheus import NoAnswer, Prometheus, Span
from dashboards.pictures.sheets import Choice, Panel, Sheet, read
from dashboards.places import FOLDER

_PAGE: Final = """\
# Dashboards

Drawn by `python -m dashboards.pictures` of the dashboards' own queries and what a Prometheus \
answered; no Grafana was at hand. Layout, units, colours and thresholds are those of the JSON; \
Grafana itself looks a little different.
"""
_POINTS: Final = 85  # a pixel each would be more than can be read


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    prometheus = Prometheus(given.prometheus)
    span = spanned(given.end or int(time.time()), given.minutes)
    sheets = {
        path.stem: read(json.loads(path.read_text())) for path in sorted(FOLDER.glob("*.json"))
    }
    try:
        pictures = {
            f"{name}.svg": pictured(sheet, prometheus, span, given.rate_interval, dict(given.set))
            for name, sheet in sheets.items()
        }
    except NoAnswer as error:
        print(error, file=sys.stderr)
        return 1
    given.out.mkdir(parents=True, exist_ok=True)
    for file, text in {**pictures, "README.md": page(sheets)}.items():
        (given.out / file).write_text(text)
    return 0


def page(sheets: Mapping[str, Sheet]) -> str:
    """Return the Markdown that shows all pictures."""
    shown = (
        f"\n## {sheet.title}\n{sheet.description}\n\n![{sheet.title}]({name}.svg)\n"
        for name, sheet in sheets.items()
    )
    return "".join([_PAGE, *shown])


def spanned(end: int, minutes: int) -> Span:
    """Return the time that is drawn, in steps of whole seconds."""
    length = minutes * 60
    return Span(end - length, end, max(length // _POINTS, 1))


def pictured(
    sheet: Sheet,
    prometheus: Prometheus,
    span: Span,
    rate_interval: str,
    chosen: Mapping[str, str],
) -> str:
    """Return the SVG of a dashboard, with what the Prometheus says now. Raises NoAnswer."""
    values: dict[str, str] = dict(built_in(span.end - span.begin, rate_interval))
    for choice in sheet.choices:
        values[choice.name] = chosen.get(choice.name) or _first(choice, prometheus, span, values)
    answers = [_asked(panel, prometheus, span, values) for panel in sheet.panels]
    return draw(sheet, values, answers, span)


def _first(choice: Choice, prometheus: Prometheus, span: Span, values: Mapping[str, str]) -> str:
    """Return what Grafana chooses: everything where it may, else the first value."""
    if choice.several:
        return ALL
    found = prometheus.values(choice.label, filled(choice.selector, values), span)
    return min(found, key=natural, default=ALL)


def _asked(panel: Panel, prometheus: Prometheus, span: Span, values: Mapping[str, str]) -> Answers:
    return tuple(
        prometheus.at(query, span.end) if target.instant else prometheus.over(query, span)
        for target in panel.targets
        for query in (filled(target.expr, values),)
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dashboards.pictures", description=(__doc__ or "").splitlines()[0]
    )
    add = parser.add_argument
    add("--prometheus", required=True, metavar="URL", help="where its HTTP API is")
    add("--out", required=True, type=Path, metavar="DIR", help="where the SVGs are written")
    add("--minutes", type=_minutes, default=60, metavar="N", help="how long back (default: 60)")
    add("--end", type=int, metavar="T", help="until when, in seconds of Unix (default: now)")
    add(
        "--rate-interval",
        default="1m",
        metavar="TIME",
        help="what Grafana puts in for $__rate_interval: four scrapes (default: %(default)s)",
    )
    add(
        "--set",
        type=_assignment,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="choose the value of a variable, such as expert=e3; repeatable",
    )
    return parser


def _minutes(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 10080):
        raise argparse.ArgumentTypeError(f"it is {text!r}; it must be a number from 1 to 10080")
    return int(text)


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"it is {text!r}; it must be NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
