"""`python -m moe_client.evaluation`: compares a version of an expert, or of a gate, with stable.

Runs a golden set through the routers of a mixture twice, its rows forced to one version and then
to the other, and writes the paired difference of next-token loss as JSON. It judges nothing.

Ends with 0 if the result was written; with 1 if there is none, and then the result is
{"error": "sentence"}; with 2 for a wrong flag.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from moe_artifacts.checkpoint import open_checkpoint
from moe_artifacts.errors import ArtifactError, Refused
from moe_artifacts.fetch import fetch
from moe_artifacts.golden import Golden, read_golden
from moe_artifacts.location import parse_uri
from moe_artifacts.trunk import trunk_sha256
from moe_client.attachment import attach
from moe_client.channel import Tls
from moe_client.comparison import to_error, to_result
from moe_client.errors import MoeError
from moe_client.evaluator import Versions, compare
from moe_client.trunk import load_trunk

_SHA256 = re.compile(r"[0-9a-f]{64}")
_BESIDE = re.compile(r"([^=:,]+)=([0-9a-f]{64}):([0-9a-f]{64})")
_QUIET_S = 2.0
# Flag, environment variable, default (None: required), help.
_FLAGS: tuple[tuple[str, str, str | None, str], ...] = (
    ("routers", "MOE_EVAL_ROUTERS", None, "addresses of routers, host:port,…"),
    ("mixture", "MOE_EVAL_MIXTURE", "", "default: the one that the routers serve"),
    ("expert", "MOE_EVAL_EXPERT", "", "id of the expert, or else:"),
    ("gate", "MOE_EVAL_GATE", "", "name of the gate"),
    ("stable", "MOE_EVAL_STABLE", None, "sha256 of its stable version"),
    ("candidate", "MOE_EVAL_CANDIDATE", None, "sha256 of the new version"),
    (
        "beside",
        "MOE_EVAL_BESIDE",
        "",
        "of a gate: what is tried out with it, e0=STABLE:CANDIDATE,gate/NAME=…",
    ),
    ("trunk", "MOE_EVAL_TRUNK_URI", None, "file:/// of the trunk's folder (`moe split`)"),
    ("trunk-sha256", "MOE_EVAL_TRUNK_SHA256", None, "the trunk's digest"),
    ("golden", "MOE_EVAL_GOLDEN_URI", None, "uri of the golden set (`moe golden`)"),
    ("golden-sha256", "MOE_EVAL_GOLDEN_SHA256", None, "the golden set's digest"),
    ("result", "MOE_EVAL_RESULT", "/dev/termination-log", "file for the result"),
    ("tls", "MOE_EVAL_TLS", "", "folder with ca.crt, tls.crt and tls.key: connect by TLS"),
    (
        "tls-name",
        "MOE_EVAL_TLS_NAME",
        "",
        "DNS name in the routers' certificate; default: the host",
    ),
    ("cache", "MOE_CACHE", "/var/cache/moeops", "folder for a golden set that is downloaded"),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What to compare, and where everything is."""

    routers: tuple[str, ...]
    mixture: str
    versions: Versions
    trunk: Path
    trunk_sha256: str
    golden_uri: str
    golden_sha256: str
    cache: Path
    tls: Tls | None = None

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Self:
        """Read the values by flag. Raises Refused, naming the flag and its variable."""
        for flag, variable, default, meaning in _FLAGS:
            if default is None and not given[flag]:
                raise Refused(f"--{flag} ({variable}) is missing; it must be {meaning}")
        for flag in ("stable", "candidate", "trunk-sha256", "golden-sha256"):
            if not _SHA256.fullmatch(given[flag]):
                right = "64 lower-case hexadecimal digits"
                raise Refused(f"--{flag} is {given[flag]!r:.80}; it must be {right}")
        if bool(given["expert"]) == bool(given["gate"]):
            flags = "--expert (MOE_EVAL_EXPERT) and --gate (MOE_EVAL_GATE)"
            values = f"{given['expert']!r:.80} and {given['gate']!r:.80}"
            raise Refused(f"{flags} are {values}; one of them must say what is compared")
        name, gate = given["expert"] or given["gate"], bool(given["gate"])
        beside = _beside(given["beside"])
        if beside and not gate:
            flags = "--beside (MOE_EVAL_BESIDE) goes with --gate (MOE_EVAL_GATE)"
            raise Refused(f"{flags}; it is given with --expert {name}")
        trunk = parse_uri(given["trunk"])
        if not isinstance(trunk, Path):
            right = "file:///path of a folder that is mounted here"
            raise Refused(f"--trunk is {given['trunk']!r:.200}; it must be {right}")
        return cls(
            routers=tuple(part for part in given["routers"].split(",") if part),
            mixture=given["mixture"],
            versions=Versions(name, given["stable"], given["candidate"], gate, beside),
            trunk=trunk,
            trunk_sha256=given["trunk-sha256"],
            golden_uri=given["golden"],
            golden_sha256=given["golden-sha256"],
            cache=Path(given["cache"]),
            tls=Tls(given["tls"], given["tls-name"]) if given["tls"] else None,
        )

    @property
    def named(self) -> dict[str, str]:
        """What the result says was compared."""
        versions = self.versions
        both = {"stable": versions.stable, "candidate": versions.candidate}
        with_it = ",".join(f"{e}={old}:{new}" for e, (old, new) in versions.beside.items())
        beside = {"beside": hashlib.sha256(with_it.encode()).hexdigest()} if with_it else {}
        return {"golden": self.golden_sha256, versions.kind: versions.name, **both, **beside}


def _beside(text: str) -> dict[str, tuple[str, str]]:
    """Read `e0=STABLE:CANDIDATE,gate/NAME=…`. Raises Refused."""
    found = {}
    for part in filter(None, text.split(",")):
        match = _BESIDE.fullmatch(part)
        if match is None:
            right = "EXPERT=SHA256:SHA256 or gate/NAME=…, several with a comma between"
            raise Refused(f"--beside (MOE_EVAL_BESIDE) has {part!r:.200}; it must be {right}")
        found[match[1]] = match[2], match[3]
    return found


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; return its exit status."""
    parsed = vars(_parser().parse_args(arguments))
    given = {
        flag: parsed[flag.replace("-", "_")] or environ.get(variable) or default or ""
        for flag, variable, default, _ in _FLAGS
    }
    status = 0
    try:
        result = evaluate(Settings.read(given))
    except (ArtifactError, MoeError) as error:
        status, result = 1, to_error(str(error))
    except Exception as error:  # whoever waits for the result is to read of it too
        traceback.print_exc()
        status, result = 1, to_error(f"{type(error).__name__}: {error}")
    print(result, flush=True)
    try:
        Path(given["result"]).write_text(result)
    except OSError as error:
        print(f"error: --result {given['result']}: {error.strerror}", file=sys.stderr)
        return 1
    return status


def evaluate(settings: Settings) -> str:
    """Return the result as JSON. Raises ArtifactError, MoeError."""
    path = fetch(settings.golden_uri, settings.golden_sha256, settings.cache)
    golden = read_golden(path, settings.golden_sha256)
    print(f"golden set: {len(golden.sequences)} sequences, {golden.tokens} tokens", flush=True)
    seen = trunk_sha256(open_checkpoint(settings.trunk).trunk())
    if seen != settings.trunk_sha256:
        raise Refused(
            f"the trunk at {settings.trunk} is {seen}; it must be {settings.trunk_sha256}"
        )
    model = load_trunk(settings.trunk)
    _check_fits(golden, model.config)
    began = time.monotonic()
    told = began

    def tell(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if done == total or now - told >= _QUIET_S:
            told = now
            print(f"{done} of {total} batches, {now - began:.0f} s", flush=True)

    where: Any = {"mixture": settings.mixture, "credentials": settings.tls}
    with attach(model, settings.routers, **where) as attachment:
        versions = settings.versions
        pairs, flips = compare(model, attachment, golden, versions, pause=time.sleep, tell=tell)
    return to_result(settings.named, pairs, flips)


def _check_fits(golden: Golden, config: Any) -> None:
    if golden.vocab > config.vocab_size:
        raise Refused(
            f"the golden set's vocab is {golden.vocab}; the model knows {config.vocab_size} tokens"
        )
    longest = max(len(sequence.tokens) for sequence in golden.sequences)
    most = getattr(config, "max_position_embeddings", longest)
    if longest > most:
        raise Refused(f"a golden sequence has {longest} tokens; the model reads {most} at most")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m moe_client.evaluation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for flag, variable, default, meaning in _FLAGS:
        asked = "" if default is None else f" (default: {default or 'none'})"
        parser.add_argument(f"--{flag}", help=f"{meaning}; {variable}{asked}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
