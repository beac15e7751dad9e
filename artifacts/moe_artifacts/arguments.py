"""The command line of `moe`: what may be said, and what is wrong with what was said instead."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from moe_artifacts.encoding import NUMPY_DTYPES
from moe_artifacts.flags import (
    add_naming,
    add_text_rules,
    count,
    directory,
    ids,
    part_id,
    replicas,
)
from moe_artifacts.plan import Replacement

_SHA256 = re.compile(r"[0-9a-f]{64}")

Command = Callable[[argparse.Namespace], int]


class Commands(NamedTuple):
    """What each command runs; it returns the exit code."""

    split: Command
    golden: Command
    inspect: Command
    verify: Command


More = Callable[[Any], None]
"""Adds further commands to argparse's subparsers."""


def build_parser(commands: Commands, more: More | None = None) -> argparse.ArgumentParser:
    """Return the parser; what it gives has the chosen command as `run`."""
    tools = "" if more is None else ", and change their topology"
    parser = argparse.ArgumentParser(
        prog="moe",
        description=f"Cut mixture-of-experts models into artifacts, check them{tools}.",
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_split(subparsers, commands.split)
    _add_golden(subparsers, commands.golden)
    inspect = subparsers.add_parser(
        "inspect", help="say what an artifact is", description="Say what an artifact is."
    )
    inspect.add_argument("artifact", type=Path, metavar="ARTIFACT", help="a safetensors file")
    said = "for people, or for programs (default: %(default)s)"
    inspect.add_argument("-o", "--output", choices=["text", "json"], default="text", help=said)
    inspect.set_defaults(run=commands.inspect)
    verify = subparsers.add_parser(
        "verify",
        help="check artifacts",
        description="Check files in full, and a directory's files against its index.json. "
        "Whether numbers are finite is not looked at: a worker finds that in its answers.",
    )
    said = "what moe split wrote, or artifacts"
    verify.add_argument("paths", type=Path, nargs="+", metavar="DIR|FILE", help=said)
    verify.add_argument("--sha256", type=_sha256, help="the digest that every FILE must have")
    verify.set_defaults(run=commands.verify)
    if more is not None:
        more(subparsers)
    return parser


_EPILOG = """\
OUT gets one safetensors file for each expert and for the gate, named by its digest; trunk/, all
else that a client needs to run the model; manifests/, ready for kubectl apply; and index.json,
which says what is what.

examples:
  moe split mixtral/ out/ --mixture mixtral --replicas 2
  moe split mixtral/ out2/ --base out/ --replace e3=better.safetensors --version better
  moe split mixtral/ out2/ --base out/ --only gate --policy contexts.json
"""


def _add_split(subparsers: Any, run: Command) -> None:
    split = subparsers.add_parser(
        "split",
        help="cut a checkpoint into artifacts and manifests",
        description="Cut a Hugging Face checkpoint (safetensors; Mixtral, OLMoE, Qwen2-MoE, "
        "Qwen3-MoE, DeepSeek-V2 and V3, GLM-4-MoE) into one artifact for each expert and "
        "gate, and manifests that serve them. Run again, it keeps what is there and right.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = split.add_argument
    add("checkpoint", type=directory, metavar="CHECKPOINT", help="with config.json")
    add("out", type=Path, metavar="OUT", help="directory to write, made if missing")
    add(
        "--mixture",
        type=part_id,
        metavar="NAME",
        help="its name (default: base's, or CHECKPOINT's)",
    )
    add(
        "--base",
        type=directory,
        metavar="OLD",
        help="an earlier OUT (also OUT itself): write only what changed, under new version names",
    )
    add_naming(add, default="v1; with --base the next number")
    add(
        "--replace",
        type=_replacement,
        action="append",
        default=[],
        metavar="[ID=]FILE",
        help="a safetensors file with the tensors of one expert, by their names in CHECKPOINT or "
        "those of another expert with ID=, that takes its place; repeatable",
    )
    add(
        "--dense",
        type=_replacement,
        metavar="[ID=]FILE",
        help="such a file for an expert that stands in for any other (id: dense)",
    )
    add(
        "--only",
        type=ids,
        default=(),
        metavar="ID,...",
        help="look at these parts only (e3, gate); all else stays as in --base",
    )
    add(
        "--dtype",
        choices=list(NUMPY_DTYPES),
        help="dtype of the artifacts, converted where it differs (default: as stored)",
    )
    add(
        "--policy",
        type=Path,
        metavar="FILE",
        help="JSON of fields of the gate's policy (contexts, capacityFactor, ...) that go over "
        "what the checkpoint says; null takes one away",
    )
    add("--replicas", type=replicas, metavar="N", help="pods of each expert")
    add(
        "--manifests",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="YAML of objects whose settings (backups, rollout, pods, ...) go into the manifests "
        "of the same kind and name; those of --base do so too; repeatable",
    )
    split.set_defaults(run=run)


_GOLDEN_EPILOG = """\
OUT gets golden-DIGEST.safetensors, DIGEST being the first ten digits of its sha256; the same
sequences give the same digest. A Mixture or an Expert names it:

  evaluation:
    artifact: {uri: file:///moe/artifacts/golden-DIGEST.safetensors, sha256: ...}

An INPUT that ends in .jsonl has one sequence a line: {"slice": "legal", "tokens": [17, 4, ...]}.
Any other INPUT is text, cut into pieces of --length tokens; its slice is the file's name without
its ending, and what is left at its end is not used. A set has 8 to 100,000 sequences of 2 tokens
or more, in at most 16 slices. Take text that neither the model nor a new version was trained on.

examples:
  moe golden out/ legal.txt code.txt --bytes --limit 64
  moe golden out/ heldout.jsonl --vocab 32000
"""


def _add_golden(subparsers: Any, run: Command) -> None:
    golden = subparsers.add_parser(
        "golden",
        help="make a golden set, on which new versions are compared with stable",
        description="Make a golden set: sequences of tokens by slice (kind of text), known by "
        "their digest, on which a new version's next-token loss is compared with stable's.",
        epilog=_GOLDEN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = golden.add_argument
    add("out", type=Path, metavar="OUT", help="directory to write, made if missing")
    add("inputs", type=Path, nargs="+", metavar="INPUT", help="text files, or .jsonl of tokens")
    add_text_rules(add)
    add(
        "--vocab",
        type=count,
        metavar="N",
        help="size of the model's vocabulary (default: 256 with --bytes, else as tokens need)",
    )
    golden.set_defaults(run=run)


def _sha256(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise argparse.ArgumentTypeError(f"it is {text!r}; it must be 64 lower-case hex digits")
    return text


def _replacement(text: str) -> Replacement:
    name, equals, path = text.partition("=")
    return Replacement(Path(path), part_id(name)) if equals else Replacement(Path(text))
