"""Where the chart keeps the dashboards."""

from __future__ import annotations

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parents[1] / "charts" / "moeops" / "files" / "dashboards"
