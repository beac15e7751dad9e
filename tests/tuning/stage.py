"""A small random model, cut by `moe split`, and text for it; and `moe` as a person runs it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from moe_artifacts.manifests import Manifest
from moe_tuning.__main__ import main
from tests.artifacts.models import make_model
from tests.support.command import run_command

VOCAB = 32
_BITS = re.compile(r"  (\S+) +([\d.]+) -> ([\d.]+) \(")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, what was printed, and what was complained of."""
    return run_command(main, capsys, *arguments)


def bits(out: str) -> Mapping[str, tuple[float, float]]:
    """Return the bits before and after that a tool printed, by slice, without their mean."""
    found = {name: (float(a), float(b)) for name, a, b in _BITS.findall(out)}
    return {name: pair for name, pair in found.items() if name != "mean"}


def write_base(folder: Path) -> Path:
    """Split the small model: four experts, two layers, top-2; e0 and e1 back each other up."""
    make_model().save_pretrained(folder / "checkpoint")
    settings = folder / "settings.yaml"
    backups = (("e0", "e1"), ("e1", "e0"), ("e2", "e3"))
    settings.write_text(yaml.safe_dump_all(_expert(*pair) for pair in backups))
    base = folder / "base"
    options = ("--mixture", "small", "--manifests", str(settings))
    assert main(["split", str(folder / "checkpoint"), str(base), *options]) == 0
    return base


def _expert(expert: str, backup: str) -> Manifest:
    """Return what people set for an expert."""
    spec = {"replicas": 2, "backupExpertId": backup}
    head = {"apiVersion": "moeops.dev/v1alpha1", "kind": "Expert"}
    return {**head, "metadata": {"name": f"small-{expert}"}, "spec": spec}


def write_tokens(path: Path, seed: int, sequences: int = 8, length: int = 12) -> Path:
    """Write JSON lines of random tokens of one slice, named like the file."""
    rng = np.random.default_rng(seed)
    path.write_text(_lines(path.stem, rng.integers(VOCAB, size=(sequences, length)).tolist()))
    return path


def _lines(name: str, sequences: Sequence[Sequence[int]]) -> str:
    return "".join(json.dumps({"slice": name, "tokens": tokens}) + "\n" for tokens in sequences)
