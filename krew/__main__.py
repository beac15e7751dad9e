"""Makes the archive for this machine and its manifest: `python -m krew --release URL`.

No archive of moeops is published yet, so there is no manifest to keep: it has the digest of an
archive that was just made, and the address at which whoever makes it will publish it.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

import yaml

from krew.archive import pack
from krew.manifest import NAME, Archive, manifest

ROOT: Final = Path(__file__).resolve().parents[1]
# What Go calls a processor, where Python calls it otherwise.
_PROCESSORS: Final = {"x86_64": "amd64", "aarch64": "arm64"}


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as people do."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def main() -> int:
    """Write both; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m krew", description=__doc__.split("\n")[0])
    release = "address of the folder where the archive will be"
    parser.add_argument("--release", required=True, metavar="URL", help=release)
    parser.add_argument("--homepage", metavar="URL", help="of the project (default: the release)")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder (default: dist)")
    args = parser.parse_args()
    if not args.release.startswith("https://"):
        parser.error(f"--release is {args.release!r}; it must begin with https://")
    system, machine = platform.system().lower(), platform.machine()
    processor = _PROCESSORS.get(machine, machine)
    data, mine = pack(ROOT), version("moeops")
    file = args.out / f"kubectl-moe-v{mine}-{system}-{processor}.tar.gz"
    uri = f"{args.release.rstrip('/')}/{file.name}"
    archive = Archive(uri, hashlib.sha256(data).hexdigest(), system, processor)
    body = manifest(mine, args.homepage or args.release, [archive])
    text = yaml.dump(dict(body), Dumper=_Dumper, sort_keys=False)
    args.out.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    described = args.out / f"{NAME}.yaml"
    described.write_text(text)
    print(f"kubectl krew install --manifest={described} --archive={file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
