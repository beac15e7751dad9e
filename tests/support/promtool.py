"""Runs promtool: the one of `make binaries`, or on PATH."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_OWN = Path(__file__).parents[2] / ".moe" / "bin" / "promtool"


def promtool(*words: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run it; skips without it."""
    program = str(_OWN) if _OWN.exists() else shutil.which("promtool")
    if program is None:
        pytest.skip("there is no promtool: run `make binaries`")
    return subprocess.run(
        [program, *map(str, words)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def check_metrics(text: str) -> str:
    """Return what promtool has against this text in Prometheus' own format; skips without it."""
    done = promtool("check", "metrics", stdin=text)
    return done.stdout + done.stderr
