"""Makes the artifacts of the example and the manifests that serve them, with `moe split`.

    python -m examples.tiny.publish .moe/artifacts        # artifacts, where nodes can read them
    python -m examples.tiny.publish .moe/artifacts --write  # and the manifests kept beside this

The artifacts are made where they are needed, as they follow from what is stored: experts, gate,
trunk, and a golden set of the held-out text, on which versions are compared. The manifests
are stored too, so that they can be read and applied as they are: `serve/` is the whole mixture,
`rollouts/` has one new version of an expert a file. Without `--write` they are only compared.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from examples.tiny.domains import DOMAINS, HERE

MIXTURE = "tiny"
MOUNTED_AT = "file:///moe/artifacts"
SERVE = HERE / "serve"
ROLLOUTS = HERE / "rollouts"
SETTINGS = HERE / "settings.yaml"
GOLDEN_PER_DOMAIN = 12
"""Sequences of 256 bytes: enough to tell versions apart, few enough for a minute of one core."""

# Expert and version: where the tensors are. The broken ones are made on the spot.
VERSIONS: Mapping[tuple[str, str], Path | None] = {
    ("e3", "v2-better"): HERE / "versions" / "expert-3-better.safetensors",
    ("e3", "v2-worse"): HERE / "versions" / "expert-3-worse.safetensors",
    ("e3", "v3-broken"): None,
    ("e2", "v2-broken"): None,
}


class Stale(Exception):
    """A stored manifest is not what follows from the checkpoint and the settings."""


def publish(out: Path, say: Callable[[str], None] = print) -> Mapping[Path, str]:
    """Write all artifacts below `out`/tiny. Return the manifests by the path they are stored at.

    `say` is told of each step, a second or two apart. Raises subprocess.CalledProcessError; the
    command has then said why on stderr.
    """
    base = out / MIXTURE
    dense = HERE / "versions" / "dense.safetensors"
    say("v1 of everything")
    _split(base, "--mixture", MIXTURE, "--dense", f"dense={dense}")
    made = {SERVE / file.name: file.read_text() for file in _manifests(base)}
    say("the golden set")
    _make_golden(base)
    for (expert, version), source in VERSIONS.items():
        folder = base / f"{expert}-{version}"
        say(f"{version} of {expert}")
        with tempfile.TemporaryDirectory() as scratch:
            tensors = source or _broken(expert, Path(scratch))
            replace = ("--replace", f"{expert}={tensors}", "--only", expert)
            _split(folder, "--base", str(base), "--version", version, *replace)
        (manifest,) = (file for file in _manifests(folder) if file.stem == expert)
        made[ROLLOUTS / f"{expert}-{version}.yaml"] = manifest.read_text()
    return made


def compare(made: Mapping[Path, str]) -> None:
    """Raise Stale, naming the files, where what is stored differs from what was made."""
    stored = {path for folder in (SERVE, ROLLOUTS) for path in folder.glob("*.yaml")}
    wrong = sorted(
        path.relative_to(HERE).as_posix()
        for path in stored | made.keys()
        if path not in made or not path.exists() or path.read_text() != made[path]
    )
    if wrong:
        raise Stale(f"not what the checkpoint gives: {', '.join(wrong)}; publish with --write")


def write(made: Mapping[Path, str]) -> None:
    """Store the manifests, and nothing else, in their folders."""
    for folder in (SERVE, ROLLOUTS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for path, text in made.items():
        path.write_text(text)


def _split(out: Path, *options: str) -> None:
    """Cut into `out` as if nothing had been there; artifacts, known by digest, are kept."""
    (out / "index.json").unlink(missing_ok=True)
    shutil.rmtree(out / "manifests", ignore_errors=True)
    below = "/".join(out.parts[out.parts.index(MIXTURE) :])
    prefix = ("--uri-prefix", f"{MOUNTED_AT}/{below}")
    command = [sys.executable, "-m", "moe_artifacts", "split", str(HERE / "checkpoint"), str(out)]
    settings = ("--manifests", str(SETTINGS))
    subprocess.run([*command, *options, *prefix, *settings], check=True, stdout=subprocess.DEVNULL)


def _make_golden(out: Path) -> None:
    texts = [str(HERE / "heldout" / f"{domain}.txt") for domain in DOMAINS]
    options = ("--bytes", "--limit", str(GOLDEN_PER_DOMAIN))
    command = [sys.executable, "-m", "moe_artifacts", "golden", str(out), *texts, *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _broken(expert: str, folder: Path) -> Path:
    path = folder / "broken.safetensors"
    command = [sys.executable, "-m", "examples.tiny.versions", "broken"]
    command += ["--expert", expert.removeprefix("e"), "--out", str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


def _manifests(folder: Path) -> Iterator[Path]:
    yield from sorted((folder / "manifests").glob("*.yaml"))


def main() -> int:
    """Publish, and write or compare the manifests; 1 where they are stale."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.tiny.publish",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="folder that nodes see as /moe/artifacts")
    parser.add_argument("--write", action="store_true", help="store the manifests anew")
    arguments = parser.parse_args()
    made = publish(arguments.out)
    if arguments.write:
        write(made)
        return 0
    try:
        compare(made)
    except Stale as stale:
        print(f"error: {stale}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
