"""Writes the pages of the reference anew: `python -m tests.reference`."""

from __future__ import annotations

from tests.reference.pages import PAGES

for path, text in PAGES.items():
    path.parent.mkdir(exist_ok=True)
    path.write_text(text())
