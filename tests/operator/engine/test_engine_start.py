"""The operator as a process that cannot start: it ends with 2 and a sentence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

IMAGES = ("--worker-image", "worker", "--router-image", "router")
NOWHERE = {
    "clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:9"}}],
    "users": [{"name": "x", "user": {"token": "x"}}],
    "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    "current-context": "x",
}


@pytest.mark.parametrize(
    ("flag", "other"),
    [("--metrics-port", "--health-port"), ("--health-port", "--metrics-port")],
)
def test_a_port_that_is_taken_ends_it_with_a_sentence(
    flag: str, other: str, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(yaml.safe_dump(NOWHERE))
    command = [sys.executable, "-m", "moe_operator", *IMAGES, "--kubeconfig", str(config)]
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*command, flag, port, other, "0"],
            env=dict(os.environ),
            capture_output=True,
            text=True,
            timeout=60,
        )

    said = done.stderr.splitlines()
    assert done.returncode == 2, done.stderr
    assert said[-1].startswith(f"moe_operator: {flag} {port}: ")
    assert said[-1].endswith("address already in use")
    assert "Traceback" not in done.stderr
