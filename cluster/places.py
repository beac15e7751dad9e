"""Where the local cluster keeps its things, and under which names.

What belongs to one checkout lives in its `.moe` folder and is named after the checkout's path, so
that two checkouts on one machine never meet. What is expensive and the same for every checkout
lives in one cache folder. Nothing here touches the disk, except to resolve the checkout's path.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Places:
    """The folders and names of one checkout on one machine."""

    root: Path
    cache: Path
    cluster: str
    workers: int

    @classmethod
    def of(cls, root: Path, env: Mapping[str, str]) -> Self:
        """Derive all names from the checkout's path; `env` may override a few.

        MOE_LOCAL_CACHE is the cache folder, MOE_LOCAL_NAME the cluster's name, MOE_LOCAL_NODES
        the number of worker nodes. Raises ValueError when MOE_LOCAL_NODES is no number from 1 to 9.
        """
        root = root.resolve()
        home = Path(env.get("XDG_CACHE_HOME") or Path(env.get("HOME", "~")).expanduser() / ".cache")
        digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
        workers = env.get("MOE_LOCAL_NODES", "2")
        if workers not in "123456789" or len(workers) != 1:
            raise ValueError(f"MOE_LOCAL_NODES is {workers!r}; it must be a number from 1 to 9")
        return cls(
            root=root,
            cache=Path(env.get("MOE_LOCAL_CACHE") or home / "moeops"),
            cluster=env.get("MOE_LOCAL_NAME") or f"moeops-{digest}",
            workers=int(workers),
        )

    @property
    def state(self) -> Path:
        """What this checkout's cluster leaves on disk; ignored by git."""
        return self.root / ".moe"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def env_file(self) -> Path:
        """What a shell sources to use this checkout's programs and cluster."""
        return self.state / "env"

    @property
    def record(self) -> Path:
        """What was made and how far it came; see `record.py`."""
        return self.state / "cluster.json"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def audit(self) -> Path:
        """The API server's audit policy and log."""
        return self.state / "audit"

    @property
    def artifacts(self) -> Path:
        """Expert and gate artifacts that pods of the local cluster read."""
        return self.state / "artifacts"

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def site_packages(self) -> Path:
        """The environment's packages, mounted into the nodes; there after `make .venv`."""
        found = sorted((self.venv / "lib").glob("python3.*/site-packages"))
        if not found:
            raise FileNotFoundError(f"{self.venv} holds no site-packages; run: make venv")
        return found[0]

    @property
    def node_files(self) -> Path:
        """Sources of the node image."""
        return self.root / "cluster" / "node"

    @property
    def tools(self) -> Path:
        """Programs that were installed for the project alone (kind)."""
        return self.cache / "bin"
