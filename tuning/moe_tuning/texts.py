"""Reads the text that a change is made with, and the text that it is measured on.

The rules are those of golden sets: text whose bytes are tokens, JSON lines of tokens, or a golden
set itself. Nothing here knows a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moe_artifacts.errors import Refused
from moe_artifacts.golden import Golden, read_golden
from moe_artifacts.golden_text import Rules, make_golden


def read_texts(paths: Sequence[Path], rules: Rules, what: str) -> Golden:
    """Return the sequences of all files, each of a slice named by its file.

    `what` is the option that named them. Raises Refused, below it BadArtifact, naming it: where
    a file cannot be read, or is no text of at least eight sequences.
    """
    try:
        if len(paths) == 1 and paths[0].suffix == ".safetensors":
            return read_golden(paths[0])
        return make_golden(((path, _read(path)) for path in paths), rules)
    except Refused as error:
        raise Refused(f"{what}: {error}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from None
