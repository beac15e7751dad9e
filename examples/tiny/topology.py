"""Changes the topology of the example model with the tools of `moe`, and says what it measured.

    python -m examples.tiny.publish .moe/artifacts    # first: what is changed
    python -m examples.tiny.topology .moe/artifacts   # into .moe/artifacts/tiny/NAME, for each NAME

The new kind of text is the log of a web server (`logs`), which the model never saw; what it knows
is in `familiar/`. Nothing of this is stored: the same machine and libraries give the same bits,
others about the same numbers, and each folder has the manifests of its own artifacts.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from examples.tiny import logs
from examples.tiny.domains import DOMAINS, HERE
from examples.tiny.publish import MIXTURE, MOUNTED_AT
from moe_artifacts.encoding import Array
from moe_tuning.change import Change, Target, write_change
from moe_tuning.folder import open_folder

COLLAPSED = "gate-collapsed"
TOOLS: Mapping[str, tuple[str, ...]] = {
    "grown": ("grow", "--from", "e5", "--steps", "80", "--limit", "128"),
    "gate-tuned": ("finetune", "--parts", "gate", "--steps", "40", "--rate", "1e-3"),
    "gate-and-e5-tuned": ("finetune", "--parts", "gate,e5", "--steps", "40", "--limit", "128"),
    "merged": ("merge", "--experts", "e0,e1", "--steps", "40"),
    "pruned": ("prune", "--count", "1"),
}
"""By the folder that it makes: a tool of `moe`, and its options."""

FOR_LOGS = ("grown", "gate-tuned", "gate-and-e5-tuned")


def make(out: Path, name: str) -> Path:
    """Make one change below `out`/tiny, which must be published; return its folder.

    The tool says on stdout what it measured. Raises subprocess.CalledProcessError; it has then
    said why on stderr.
    """
    folder = out / MIXTURE / name
    (folder / "index.json").unlink(missing_ok=True)  # as if nothing had been there
    shutil.rmtree(folder / "manifests", ignore_errors=True)
    if name == COLLAPSED:
        collapse(out / MIXTURE, folder)
        return folder
    verb, *options = TOOLS[name]
    familiar = [str(HERE / "familiar" / f"{domain}.txt") for domain in DOMAINS]
    with tempfile.TemporaryDirectory() as scratch:
        training, heldout = (Path(scratch) / "training.txt", Path(scratch) / "logs.txt")
        training.write_bytes(logs.text(logs.TRAINING_SEED, logs.TRAINING_BYTES))
        heldout.write_bytes(logs.text(logs.HELDOUT_SEED, logs.HELDOUT_BYTES))
        command = [sys.executable, "-m", "moe_tuning", verb, str(out / MIXTURE), str(folder)]
        command += ["--bytes", *options, "--uri-prefix", f"{MOUNTED_AT}/{MIXTURE}/{name}"]
        command += ["--heldout", str(heldout)]
        command += [str(HERE / "heldout" / f"{domain}.txt") for domain in DOMAINS]
        if name in FOR_LOGS:
            command += ["--text", str(training), "--familiar", *familiar]
        else:
            command += ["--text", *familiar]
        subprocess.run(command, check=True)
    return folder


def collapse(base: Path, folder: Path) -> None:
    """Write a gate whose second choice is the same expert for every token."""
    opened = open_folder(base)
    gate = opened.gate()
    rows: dict[str, Array] = {}
    for layer, held in gate.layers.items():
        weight = held.weight
        rows[f"layers.{layer}.weight"] = wrong = np.zeros_like(weight)
        wrong[0], wrong[1] = weight[0] * 20, -weight[0] * 20
    target = Target(folder, f"{MOUNTED_AT}/{MIXTURE}/{folder.name}", "v2-collapsed")
    write_change(opened, Change((gate.metadata, rows)), target)


def main() -> int:
    """Make all of them, or those named; 1 where a tool failed."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.tiny.topology",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="folder that nodes see as /moe/artifacts")
    parser.add_argument("--only", choices=[*TOOLS, COLLAPSED], help="make this one")
    arguments = parser.parse_args()
    for name in [arguments.only] if arguments.only else [*TOOLS, COLLAPSED]:
        print(f"\n# {name}", flush=True)
        try:
            make(arguments.out, name)
        except subprocess.CalledProcessError as error:
            return int(error.returncode)
    return 0


if __name__ == "__main__":
    sys.exit(main())
