"""All pages of the reference: where each lies, and what makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.reference import commands, metrics, plugin, protocols, resources, settings

PAGES: Final[Mapping[Path, Callable[[], str]]] = {
    metrics.PAGE: metrics.page,
    resources.PAGE: resources.text,
    protocols.PAGE: protocols.text,
    settings.PAGE: settings.text,
    commands.PAGE: commands.text,
    plugin.PAGE: plugin.page,
}
