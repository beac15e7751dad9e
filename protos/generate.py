"""Generates the Python package `moeops.v1` from the protos beside this file.

It is a hatch build hook, so that an installed or editable moeops always has code that fits its
protos; `python protos/generate.py` does the same by hand. Nothing it writes is committed.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent


def generate() -> None:
    """Write messages, gRPC stubs and their types beside each proto.

    Raises RuntimeError when protoc refuses one of them; protoc has then said why on stderr.
    """
    protos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "moeops").rglob("*.proto"))
    plugins = [
        f"--plugin={name}={_plugin(name)}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
    ]
    outputs = [f"--{kind}_out={ROOT}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    well_known = files("grpc_tools") / "_proto"
    if protoc.main(["protoc", f"-I{ROOT}", f"-I{well_known}", *plugins, *outputs, *protos]) != 0:
        raise RuntimeError(f"protoc refused one of {', '.join(protos)}")


def _plugin(name: str) -> str:
    """Find a plugin beside this Python, or on PATH: pip's isolated builds put it only there."""
    beside = Path(sys.executable).parent
    found = shutil.which(name, path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise RuntimeError(f"{name} is not there; it comes with mypy-protobuf")
    return found


class GenerateProtos(BuildHookInterface[Any]):
    """Runs `generate` before hatch collects the files of a wheel or an editable install."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        generate()


if __name__ == "__main__":
    generate()
