"""The manifest of the plugin, as krew's developer guide describes it: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from krew.archive import PROGRAM, PYTHON

API_VERSION: Final = "krew.googlecontainertools.github.com/v1alpha2"
NAME: Final = "moe"
_DESCRIPTION: Final = """\
See and steer the experts of mixture-of-experts models that moeops serves: a tree down to the pods,
the load of each expert, what gates choose, histories; roll back, promote, abort, pause and retry.
"""
_CAVEATS: Final = f"""\
* It needs {PYTHON} in PATH.
* For completion of names run: kubectl moe completion --install
"""


@dataclass(frozen=True, slots=True)
class Archive:
    """Where an archive can be had, its digest, and what it is for, as Go names it."""

    uri: str
    sha256: str
    system: str
    processor: str


def manifest(version: str, homepage: str, archives: Sequence[Archive]) -> Mapping[str, Any]:
    """Return the manifest of a version, without the v that krew wants before it."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Plugin",
        "metadata": {"name": NAME},
        "spec": {
            "version": f"v{version}",
            "homepage": homepage,
            "shortDescription": "Roll out and steer experts of MoE models",
            "description": _DESCRIPTION,
            "caveats": _CAVEATS,
            "platforms": [_platform(archive) for archive in archives],
        },
    }


def _platform(archive: Archive) -> Mapping[str, Any]:
    return {
        "selector": {"matchLabels": {"os": archive.system, "arch": archive.processor}},
        "uri": archive.uri,
        "sha256": archive.sha256,
        "bin": PROGRAM,
    }
