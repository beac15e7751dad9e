"""Reads the pages of the documentation: fenced blocks, links, headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_FENCE: Final = re.compile(r"```(\w*)$")
_LINK: Final = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"#+ (.+)$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language (none for what is typed), its lines, and where it begins."""

    language: str
    lines: tuple[str, ...]
    line: int

    @property
    def text(self) -> str:
        return "\n".join([*self.lines, ""])


def blocks(text: str) -> Iterator[Block]:
    """Give the fenced blocks of a page. Raises ValueError where one is not closed."""
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        if found := _FENCE.match(line):
            inside: list[str] = []
            for _, content in lines:
                if content == "```":
                    yield Block(found[1], tuple(inside), number)
                    break
                inside.append(content)
            else:
                raise ValueError(f"the block that begins in line {number} is not closed")


def typed(block: Block) -> Iterator[str]:
    """Give the commands of a block, each on one line, without what is after #."""
    if block.language not in ("", "sh"):
        return
    joined = re.sub(r"\\\n\s*", "", block.text)
    for line in joined.splitlines():
        if command := re.sub(r"\s+#.*$", "", line).removeprefix("$ ").strip():
            yield command


def links(text: str) -> list[str]:
    """Return where the links of a page lead, without those in its blocks."""
    return _LINK.findall(_unfenced(text))


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    found = (_HEADING.match(line) for line in _unfenced(text).splitlines())
    return {_anchor(match[1]) for match in found if match}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _unfenced(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
