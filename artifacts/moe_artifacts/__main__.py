"""`moe`: makes artifacts, inspects and verifies them. Puts the pieces together.

Exit codes: 0 done, 1 refused or failed (the last line says what and why), 2 a wrong command line;
130 and 143 where it was interrupted or told to end, leaving no half-written file.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from moe_artifacts.arguments import Command, Commands, More, build_parser
from moe_artifacts.artifact import open_artifact, read_metadata, sha256_of_file
from moe_artifacts.errors import ArtifactError, Refused
from moe_artifacts.golden import KIND, encode, is_golden, read_golden, sha256_of
from moe_artifacts.golden_text import Rules, make_golden
from moe_artifacts.index import Entry, Index, load
from moe_artifacts.metadata import ID
from moe_artifacts.plan import MANIFESTS, Request, make_plan
from moe_artifacts.progress import Meter, human_bytes
from moe_artifacts.split import Summary, split
from moe_artifacts.whole_files import write_whole


def main(
    argv: Sequence[str] | None = None, new_meter: type[Meter] = Meter, more: More | None = None
) -> int:
    """Run one command; return its exit code. `new_meter` makes what is told of the progress.

    `more` adds commands of other packages.
    """
    commands = Commands(partial(_split, new_meter), _golden, _inspect, _verify)
    arguments = build_parser(commands, more).parse_args(argv)
    run: Command = arguments.run
    before = signal.signal(signal.SIGTERM, _end)
    try:
        return run(arguments)
    except ArtifactError as error:
        print(f"moe: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("moe: interrupted; no half-written file is left", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _split(new_meter: type[Meter], arguments: argparse.Namespace) -> int:
    request = Request(
        checkpoint=arguments.checkpoint,
        out=arguments.out,
        mixture=arguments.mixture or _default_mixture(arguments),
        uri_prefix=arguments.uri_prefix,
        version=arguments.version,
        base=arguments.base,
        replicas=arguments.replicas,
        dtype=arguments.dtype,
        policy=arguments.policy,
        settings=tuple(arguments.manifests),
        replaced=tuple(arguments.replace),
        dense=arguments.dense,
        only=frozenset(arguments.only),
    )
    plan = make_plan(request)
    meter = new_meter("moe split", plan.bytes_to_read, sys.stderr)
    _print_summary(request, split(plan, meter.add))
    return 0


def _default_mixture(arguments: argparse.Namespace) -> str:
    """Return the name in the base, or one made of the checkpoint's directory."""
    base = arguments.base and load(arguments.base)
    if base:
        return str(base.mixture)
    name = re.sub(r"[^a-z0-9]+", "-", arguments.checkpoint.resolve().name.lower()).strip("-")
    if not ID.fullmatch(name):
        raise Refused(f"--mixture is needed: no name can be made of {arguments.checkpoint}")
    return name


def _print_summary(request: Request, summary: Summary) -> None:
    for entry in summary.index.entries:
        fate = summary.fates.get(entry.name, "as in base")
        columns = f"{entry.name:<8} {entry.role or 'Gate':<7} {entry.version:<8}"
        print(f"{columns} {entry.sha256[:10]}  {human_bytes(entry.size):>9}  {fate}")
    print(f"trunk {summary.index.trunk_sha256} at {summary.index.trunk_uri}")
    count = len(summary.manifests)
    if count:
        print(f"{count} manifests: kubectl apply -f {request.out / MANIFESTS}")
    else:
        print("no manifests: nothing changed")


def _golden(arguments: argparse.Namespace) -> int:
    rules = Rules(arguments.bytes, arguments.length, arguments.limit, arguments.vocab)
    golden = make_golden(((path, _read_input(path)) for path in arguments.inputs), rules)
    content, sha256 = encode(golden), sha256_of(golden)
    path = arguments.out / f"{KIND}-{sha256[:10]}.safetensors"
    write_whole(path, [content])
    counts = Counter(sequence.slice for sequence in golden.sequences)
    for name in golden.slices:
        print(f"{name:<16} {counts[name]:>6} sequences")
    print(f"{path}  {len(golden.sequences)} sequences, {golden.tokens} tokens")
    print(f"sha256 {sha256}")
    return 0


def _read_input(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from None


def _inspect(arguments: argparse.Namespace) -> int:
    facts = _facts(arguments.artifact)
    if arguments.output == "json":
        print(json.dumps(facts, indent=2))
        return 0
    for name, value in facts.items():
        if name != "tensors":
            print(f"{name:<17} {value}")
    for name, shape in facts["tensors"].items():
        print(f"  {name:<24} {' x '.join(map(str, shape))}")
    return 0


def _facts(path: Path) -> dict[str, Any]:
    text, file = open_artifact(path, None)
    fields = read_golden(path).to_dict() if is_golden(text) else read_metadata(path).to_dict()
    entries = file.header.entries
    return {
        **fields,
        "sha256": sha256_of_file(path),
        "bytes": path.stat().st_size,
        "tensors": {name: list(entry.shape) for name, entry in entries.items()},
    }


def _verify(arguments: argparse.Namespace) -> int:
    """Look at every path, also after a bad one, and say which are bad."""
    wrong = 0
    for path in arguments.paths:
        for name, check in _checks(path, arguments.sha256):
            try:
                check()
                print(f"{name}: ok")
            except ArtifactError as error:
                wrong += 1
                print(f"moe: {error}", file=sys.stderr)
    return 1 if wrong else 0


def _checks(path: Path, sha256: str | None) -> Sequence[tuple[Path, Callable[[], object]]]:
    if not path.is_dir():
        return [(path, lambda: _check_file(path, sha256))]
    index = load(path)
    if index is None:
        raise Refused(f"{path} has no index.json; name its files one by one")
    return [_check_entry(path, index, entry) for entry in index.entries if entry.file]


def _check_file(path: Path, sha256: str | None) -> None:
    text, _ = open_artifact(path, sha256)
    if is_golden(text):
        read_golden(path)
    else:
        read_metadata(path)


def _check_entry(directory: Path, index: Index, entry: Entry) -> tuple[Path, Callable[[], object]]:
    file = directory / (entry.file or "")
    return file, lambda: _check_listed(file, index, entry)


def _check_listed(file: Path, index: Index, entry: Entry) -> None:
    metadata = read_metadata(file, entry.sha256)
    if (metadata.hidden_size, metadata.layers) != (index.hidden_size, entry.layers):
        raise Refused(f"{file}: hidden size or layers are not those of index.json")


if __name__ == "__main__":
    sys.exit(main())
