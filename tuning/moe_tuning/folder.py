"""Opens what `moe split` wrote, or one of the tools here: its index, gate, experts and trunk.

An artifact that the folder took over from an earlier one is looked for in the folders given with
it, and at its `file://` address. Digests are checked; nothing is written, and torch is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_artifacts.artifact import ExpertArtifact, GateArtifact, read_expert, read_gate
from moe_artifacts.errors import BadCheckpoint, Refused
from moe_artifacts.index import FILE, Entry, Index, load
from moe_artifacts.manifests import Key, Manifest, read_settings
from moe_artifacts.parts import GATE
from moe_artifacts.plan import MANIFESTS
from moe_artifacts.trunk_folder import FOLDER

_LOCAL = "file://"


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder with an index, and `others`, where artifacts may lie that it does not hold."""

    path: Path
    index: Index
    others: tuple[Path, ...] = ()

    @property
    def gate_entry(self) -> Entry:
        """The gate's entry. Raises BadCheckpoint where there is none."""
        entry = self.index.entry(GATE)
        if entry is None or entry.role is not None:
            raise BadCheckpoint(f"{self.path} lists no gate; a mixture has one")
        return entry

    def gate(self) -> GateArtifact:
        """Read the gate. Raises Refused where its file is not found or not it."""
        entry = self.gate_entry
        return read_gate(self.find(entry), entry.sha256)

    def expert(self, name: str) -> ExpertArtifact:
        """Read an expert. Raises Refused where it is not listed, not found, or not it."""
        entry = self.index.entry(name)
        if entry is None or entry.role is None:
            raise Refused(f"{self.path} lists no expert {name!r}; the gate does")
        return read_expert(self.find(entry), entry.sha256)

    def find(self, entry: Entry) -> Path:
        """Return where an artifact lies. Raises Refused, saying where it was looked for."""
        name = entry.file or entry.uri.rpartition("/")[2]
        places = [folder / name for folder in (self.path, *self.others)]
        return self._first(places, entry.uri, f"{entry.name} {entry.version}")

    def trunk(self) -> Path:
        """Return the folder of the trunk. Raises Refused where it is not found."""
        places = [folder / FOLDER for folder in (self.path, *self.others)]
        return self._first(places, self.index.trunk_uri, "the trunk")

    def settings(self) -> Mapping[Key, Manifest]:
        """Return what people set for the objects of this mixture. Raises BadCheckpoint."""
        settings: dict[Key, Manifest] = {}
        for folder in (*reversed(self.others), self.path):
            for path in sorted((folder / MANIFESTS).glob("*.yaml")):
                settings |= read_settings(_read(path), str(path))
        return settings

    def _first(self, places: list[Path], uri: str, what: str) -> Path:
        if uri.startswith(_LOCAL):
            places.append(Path(uri.removeprefix(_LOCAL)))
        found = next((place for place in places if place.exists()), None)
        if found is None:
            seen = ", ".join(str(place.parent) for place in places)
            raise Refused(f"{what} is in none of {seen}; name its folder with --artifacts")
        return found


def open_folder(path: Path, others: tuple[Path, ...] = ()) -> Folder:
    """Open a folder by its index. Raises BadCheckpoint where it has none."""
    index = load(path)
    if index is None:
        raise BadCheckpoint(f"{path} has no {FILE}; it must be a folder that moe split wrote")
    return Folder(path, index, others)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{path} cannot be read: {error}") from None
