"""Writes the lists of packages that the images hold: everything that the programs' extras need.

`python images/closure.py` reads what is installed in this environment and rewrites the lists
beside this file; their versions and digests are those of requirements.lock. `common` is in all
images, `shared` in operator and router, so that these are layers which they have in common. What
only the worker needs is torch and its libraries, which the evaluator needs too, and transformers
beside them; a local cluster mounts all that instead.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER = Path(__file__).resolve().parent


def closure(wanted: Iterable[str]) -> frozenset[str]:
    """Return the names of all packages that these requirements need here, themselves included."""
    found: set[str] = set()
    todo = [Requirement(text) for text in wanted]
    seen: set[str] = set()
    while todo:
        wish = todo.pop()
        name = canonicalize_name(wish.name)
        key = f"{name}[{','.join(sorted(wish.extras))}]"
        if key in seen:
            continue
        seen.add(key)
        found.add(name)
        for extra in ("", *wish.extras):
            needs = map(Requirement, requires(name) or [])
            todo += [n for n in needs if n.marker is None or n.marker.evaluate({"extra": extra})]
    return frozenset(found)


def lists(project: Path) -> Mapping[str, list[str]]:
    """Return the sorted names for each list, from the project's pyproject.toml."""
    described = tomllib.loads(project.read_text())
    base, extras = (
        described["project"]["dependencies"],
        described["project"]["optional-dependencies"],
    )
    traced = base + extras["tracing"]
    worker, evaluator = closure(traced + extras["worker"]), closure(base + extras["client"])
    router, operator = closure(traced + extras["router"]), closure(base + extras["operator"])
    common = worker & router & operator
    shared = (router & operator) - common
    named = {
        "common": common,
        "shared": shared,
        "operator": operator - common - shared,
        "router": router - common - shared,
        "worker": worker - common,
        "evaluator": evaluator - worker,
        "build": closure(described["build-system"]["requires"]),
    }
    return {name: sorted(names) for name, names in named.items()}


def main() -> None:
    """Rewrite the lists."""
    for name, names in lists(FOLDER.parent / "pyproject.toml").items():
        (FOLDER / f"{name}.txt").write_text("\n".join(names) + "\n")


if __name__ == "__main__":
    main()
