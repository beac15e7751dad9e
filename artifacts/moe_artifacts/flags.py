"""What the commands of `moe` have in common: what a value may be, and flags that several take."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moe_artifacts.errors import Refused
from moe_artifacts.location import parse_uri
from moe_artifacts.metadata import ID

_VERSION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_MOST = 1 << 24

Add = Callable[..., Any]
"""A parser's `add_argument`."""


def add_text_rules(add: Add) -> None:
    """Add how files of text become sequences of tokens (`moe_artifacts.golden_text.Rules`)."""
    add("--bytes", action="store_true", help="each byte of a text is a token, its value")
    add(
        "--length",
        type=count,
        default=256,
        metavar="N",
        help="tokens in a sequence of text (default: %(default)s)",
    )
    add(
        "--limit",
        type=count,
        metavar="N",
        help="at most so many sequences of each file, spread over it evenly (default: all)",
    )


def add_naming(add: Add, default: str) -> None:
    """Add how what is new is called, and where it will be found. `default` is said of names."""
    add("--version", type=version, metavar="V", help=f"name of new versions (default: {default})")
    add(
        "--uri-prefix",
        type=uri_prefix,
        default="file:///moe/artifacts",
        metavar="URI",
        help="where the files will be found by workers and routers (default: %(default)s)",
    )


def count(text: str) -> int:
    return _whole(text, 1, _MOST)


def natural(text: str) -> int:
    return _whole(text, 0, _MOST)


def replicas(text: str) -> int:
    return _whole(text, 0, 1024)


def _whole(text: str, low: int, high: int) -> int:
    if not text.isascii() or not text.isdecimal() or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(
            f"it is {text!r}; it must be a number from {low} to {high}"
        )
    return int(text)


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"it is {text!r}; it must be a number above 0")
    return value


def directory(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no directory")
    return Path(text)


def part_id(text: str) -> str:
    if not ID.fullmatch(text):
        right = "at most 50 lower-case letters, digits and hyphens, no hyphen at either end"
        raise argparse.ArgumentTypeError(f"it is {text!r}; it must be {right}")
    return text


def ids(text: str) -> tuple[str, ...]:
    return tuple(part_id(name) for name in text.split(","))


def version(text: str) -> str:
    if not _VERSION.fullmatch(text):
        right = "at most 63 letters, digits, dots, underscores and hyphens, a letter or digit first"
        raise argparse.ArgumentTypeError(f"it is {text!r}; it must be {right}")
    return text


def uri_prefix(text: str) -> str:
    prefix = text.rstrip("/")
    try:
        parse_uri(f"{prefix}/x")
    except Refused as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return prefix
