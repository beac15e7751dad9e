"""`index.json`: what the artifacts of one directory are, and which version of each part is newest.

Pure but for `load`. It is complete: also what was taken over from the directory that this one was
based on is in it, with the uri under which it is served. A version is a name for one digest.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from moe_artifacts.checkpoint import read_json
from moe_artifacts.errors import BadCheckpoint
from moe_core.document import InvalidDocument, Reader
from moe_core.rows import Role

FILE = "index.json"
_FORMAT = 1
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_NUMBERED = re.compile(r"(.*?)(\d{1,9})")


@dataclass(frozen=True, slots=True)
class Entry:
    """One artifact. `file` is its name in this directory, None where it lies in an earlier one."""

    name: str  # expertId, or "gate"
    role: Role | None  # None: a gate
    version: str
    sha256: str
    size: int
    uri: str
    layers: tuple[int, ...]
    file: str | None

    @classmethod
    def read(cls, reader: Reader) -> Self:
        file = reader.text("file", default="") or None
        if file is not None and not _FILE_NAME.fullmatch(file):
            raise InvalidDocument(f"{reader.path}.file is {file!r:.60}; it must be a file's name")
        return cls(
            name=reader.text("name"),
            role=None if reader.text("kind") == "Gate" else reader.enum("role", Role),
            version=reader.text("version"),
            sha256=reader.sha256("sha256"),
            size=reader.integer("bytes"),
            uri=reader.text("uri"),
            layers=reader.integers("layers"),
            file=file,
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": "Gate" if self.role is None else "Expert",
            **({} if self.role is None else {"role": self.role.value}),
            "version": self.version,
            "sha256": self.sha256,
            "bytes": self.size,
            "uri": self.uri,
            "layers": list(self.layers),
            **({} if self.file is None else {"file": self.file}),
        }

    def elsewhere(self) -> Self:
        """Return this entry as another directory's index has it: without a file of its own."""
        return replace(self, file=None)


@dataclass(frozen=True, slots=True)
class Index:
    """All parts of a mixture: experts in the order of the gate's rows, dense ones, the gate."""

    mixture: str
    hidden_size: int
    layers: int
    dtype: str
    trunk_sha256: str
    entries: tuple[Entry, ...]
    trunk_uri: str = ""  # of its folder; empty in an index from before there were any

    @classmethod
    def read(cls, reader: Reader) -> Self:
        if (seen := reader.integer("format")) != _FORMAT:
            raise InvalidDocument(f"{reader.path}.format is {seen}; this program reads {_FORMAT}")
        return cls(
            mixture=reader.text("mixture"),
            hidden_size=reader.integer("hiddenSize", low=1),
            layers=reader.integer("layers", low=1),
            dtype=reader.text("dtype"),
            trunk_sha256=reader.sha256("trunkSha256"),
            entries=tuple(Entry.read(item) for item in reader.items("artifacts")),
            trunk_uri=reader.text("trunkUri", default=""),
        )

    def to_text(self) -> str:
        fields = {
            "format": _FORMAT,
            "mixture": self.mixture,
            "hiddenSize": self.hidden_size,
            "layers": self.layers,
            "dtype": self.dtype,
            "trunkSha256": self.trunk_sha256,
            **({"trunkUri": self.trunk_uri} if self.trunk_uri else {}),
            "artifacts": [entry.to_dict() for entry in self.entries],
        }
        return json.dumps(fields, indent=2) + "\n"

    def entry(self, name: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.name == name), None)


def load(directory: Path) -> Index | None:
    """Read the index of a directory; None where there is none. Raises BadCheckpoint."""
    path = directory / FILE
    if not path.exists():
        return None
    try:
        return Index.read(Reader(read_json(path), FILE))
    except InvalidDocument as error:
        raise BadCheckpoint(f"{directory}: {error}") from None


def choose_version(
    part: str, sha256: str, wanted: str | None, base: Entry | None, there: Entry | None
) -> str:
    """Return the name of a new artifact. `base` is what it follows, `there` what OUT says of it.

    Raises BadCheckpoint where the name would stand for two digests.
    """
    if base is not None:
        version = wanted or _next(base.version)
    elif there is not None and there.sha256 == sha256:
        version = wanted or there.version
    else:
        version = wanted or "v1"
    for known in (base, there):
        if known is not None and known.version == version and known.sha256 != sha256:
            advice = "" if base else ", or --base with the directory that it follows"
            raise BadCheckpoint(
                f"{part} is {sha256[:10]} now, and its version {version} is {known.sha256[:10]} "
                f"already; give another --version{advice}"
            )
    return version


def _next(version: str) -> str:
    """Return the name after this one: v1, v2, v3; a name without a number gets -2."""
    match = _NUMBERED.fullmatch(version)
    return f"{match[1]}{int(match[2]) + 1}" if match else f"{version}-2"
