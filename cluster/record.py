"""Remembers what a checkout made, so that it can be taken away, also after an interruption.

The record says which cluster belongs to this checkout and whether it was finished. A note in the
shared cache names the checkout, so that clusters of checkouts that are gone can be found.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from cluster.places import Places


@dataclass(frozen=True, slots=True)
class Record:
    """One cluster: its name, node image and settings' digest, its nodes, and if it is finished."""

    cluster: str
    image: str
    settings: str
    nodes: int
    finished: bool

    @classmethod
    def read(cls, places: Places) -> Self | None:
        """Return what this checkout has made, or None; what cannot be read is not finished."""
        try:
            return cls(**json.loads(places.record.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            return cls(places.cluster, image="", settings="", nodes=0, finished=False)

    def write(self, places: Places) -> None:
        places.state.mkdir(parents=True, exist_ok=True)
        _note(places.cache, self.cluster).parent.mkdir(parents=True, exist_ok=True)
        _note(places.cache, self.cluster).write_text(str(places.root))
        fresh = places.record.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self), indent=2) + "\n")
        fresh.replace(places.record)


def forget(places: Places) -> None:
    """Drop the record and the note; there is nothing left to take away."""
    places.record.unlink(missing_ok=True)
    _note(places.cache, places.cluster).unlink(missing_ok=True)


def orphans(cache: Path) -> Iterator[str]:
    """Yield the names of clusters whose checkout is gone, and drop their notes."""
    for note in sorted((cache / "clusters").glob("*")):
        record = Path(note.read_text()) / ".moe" / "cluster.json"
        if not record.exists():
            yield note.name
            note.unlink(missing_ok=True)


def _note(cache: Path, cluster: str) -> Path:
    return cache / "clusters" / cluster
