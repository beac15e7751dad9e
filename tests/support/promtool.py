"""Has promtool look at metrics: the one of `make binaries`, or on PATH."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_OWN = Path(__file__).parents[2] / ".moe" / "bin" / "promtool"


def check_metrics(text: str) -> str:
    """Return what promtool has against this text in Prometheus' own format; skips without it."""
    program = str(_OWN) if _OWN.exists() else shutil.which("promtool")
    if program is None:
        pytest.skip("there is no promtool: run `make binaries`")
    done = subprocess.run(
        [program, "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr
