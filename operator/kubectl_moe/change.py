"""Turns `set version` into the fields that change, or says why not: pure.

Where no artifact is given it is that of an earlier revision: a version is a name for one artifact.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kubectl_moe.decide import Refused, Skip
from kubectl_moe.names import API_VERSION, described
from kubectl_moe.past import Past, readable

Body = Mapping[str, Any]


def set_version(
    target: Body, past: Sequence[Past], version: str, uri: str | None, sha256: str | None
) -> dict[str, Any] | Skip:
    """Return what of an Expert or a Gate is to be applied. Raises Refused."""
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise Refused(f"--sha256 is {sha256!r}; it is 64 digits of 0-9a-f, as sha256sum prints it")
    spec = target["spec"]
    known = {each.version: (each.uri, each.sha256) for each in readable(past)}
    known[spec["version"]] = (spec["artifact"]["uri"], spec["artifact"]["sha256"])
    before = known.get(version)
    if before is None and (uri is None or sha256 is None):
        had = ", ".join(known)
        raise Refused(
            f"{described(target)} never had a version {version!r} (it had {had}), so that "
            "--uri and --sha256 are needed"
        )
    if before is not None and sha256 not in (None, before[1]):
        raise Refused(
            f"--sha256 is not that of {version!r}, which is {before[1]}: a version is a name for "
            "exactly one artifact, so give this one another name"
        )
    artifact = {"uri": uri or (before or ("",))[0], "sha256": sha256 or (before or ("", ""))[1]}
    was = {name: spec["artifact"][name] for name in artifact}
    if (version, artifact) == (spec["version"], was):
        return Skip(f"the spec of {described(target)} asks for {version} already")
    name = target["metadata"]["name"]
    return {
        "apiVersion": API_VERSION,
        "kind": target["kind"],
        "metadata": {"name": name},
        "spec": {"version": version, "artifact": artifact},
    }
