"""Makes the checkout's Python environment from the lock, and keeps it as the lock says.

Runs on the system's Python before anything is installed. The tools that it needs are kept in the
shared cache; packages are downloaded once for all checkouts and hard-linked into each.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from cluster.locks import held
from cluster.places import Places
from cluster.prerequisites import require_venv
from cluster.progress import Command, Progress


def ensure(places: Places, progress: Progress) -> None:
    """Have `.venv` hold what requirements.lock says, and this checkout's packages, editable.

    Does nothing, quickly, while lock, project and protos are as they were the last time.
    """
    with held(places.state / "venv.lock"):
        python = places.venv / "bin" / "python"
        lock = places.root / "requirements.lock"
        packages, project = digest([lock]), digest(_project_files(places.root))
        if not _is_done(places, "packages", packages):
            uv, env = _tools(places, progress) / "bin" / "uv", _uv_settings(places, progress)
            _create(places, uv, env, progress)
            with progress.step("installing the locked packages (4 GB when cold)"):
                sync: Command = [uv, "pip", "sync", "--quiet", "--python", python]
                progress.run([*sync, "--require-hashes", lock], env=env)
            _note(places, "packages", packages)
        if not _is_done(places, "project", project):
            uv, env = _tools(places, progress) / "bin" / "uv", _uv_settings(places, progress)
            with progress.step("installing this checkout into it"):
                install: Command = [uv, "pip", "install", "--quiet", "--python", python]
                install += ["--no-deps", "--no-build-isolation", "--editable", places.root]
                progress.run(install, env=env)
            with progress.step("compiling what workers import"):
                # Pods mount the packages read-only: each would compile all of torch at its start.
                here = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": ""}
                progress.run([python, "-c", "import moe_worker.program"], env=here)
            _note(places, "project", project)


def tools_python(places: Places, progress: Progress) -> Path:
    """Return a Python with pip, of the version of the environment, for downloading packages."""
    return _tools(places, progress) / "bin" / "python"


def pip_settings(listing: str) -> Mapping[str, str]:
    """Read `pip config list`: what the environment says wins over what files say."""
    settings: dict[str, str] = {}
    for scope in (r"(?:global|install|download)\.", r":env:\."):
        settings |= dict(re.findall(rf"^{scope}([\w-]+)='(.*)'$", listing, re.MULTILINE))
    return settings


def uv_variables(pip: Mapping[str, str]) -> Mapping[str, str]:
    """Return the variables that make uv, which does not read pip's settings, follow them."""
    variables = {
        "UV_DEFAULT_INDEX": pip.get("index-url", ""),
        "UV_INDEX": " ".join(pip.get("extra-index-url", "").split()),
        "UV_FIND_LINKS": ",".join(link for link in pip.get("find-links", "").split()),
        "SSL_CERT_FILE": pip.get("cert", ""),
        "UV_HTTP_TIMEOUT": pip.get("default-timeout", ""),
    }
    return {name: value for name, value in variables.items() if value}


def digest(files: Iterable[Path]) -> str:
    """Return a digest of those files' contents and of this Python's version."""
    total = hashlib.sha256(repr(sys.version_info[:2]).encode())
    for file in files:
        total.update(b"\0" + os.fsencode(file.name) + b"\0" + file.read_bytes())
    return total.hexdigest()[:16]


def _project_files(root: Path) -> list[Path]:
    """What an editable installation is made from: everything else is read in place."""
    protos = sorted((root / "protos" / "moeops").rglob("*.proto"))
    return [root / "pyproject.toml", root / "protos" / "generate.py", *protos]


def _create(places: Places, uv: Path, env: Mapping[str, str], progress: Progress) -> None:
    python = places.venv / "bin" / "python"
    minor = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    if not (python.exists() and progress.succeeds([python, "-c", minor])):
        command: Command = [uv, "venv", "--quiet", "--clear", "--python", _base()]
        progress.run([*command, places.venv], env=env)


def _tools(places: Places, progress: Progress) -> Path:
    """Return the environment with pip and uv that all checkouts share; made when missing."""
    lock = places.root / "cluster" / "tools.lock"
    wanted = digest([lock])
    folder = places.cache / "venv"
    stamp = folder / "tools.stamp"
    with held(places.cache / "venv.lock"):
        if not (stamp.exists() and stamp.read_text() == wanted):
            require_venv(places, progress)
            with progress.step("getting pip and uv"):
                progress.run([_base(), "-m", "venv", "--clear", folder])
                pip: Command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
                progress.run([*pip, "--require-hashes", "--requirement", lock])
            stamp.write_text(wanted)
    return folder


def _uv_settings(places: Places, progress: Progress) -> Mapping[str, str]:
    python = places.cache / "venv" / "bin" / "python"
    listing = progress.run([python, "-m", "pip", "config", "list"])
    # Hard links: the folder of packages is mounted elsewhere, where a symbolic one leads nowhere.
    own = {"UV_CACHE_DIR": str(places.cache / "uv"), "UV_LINK_MODE": "hardlink"}
    return {**uv_variables(pip_settings(listing)), **own}


def _base() -> str:
    """The Python that this one, perhaps an environment's, was made from."""
    return str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}")


def _is_done(places: Places, name: str, digest: str) -> bool:
    stamp = places.venv / f"{name}.stamp"
    return stamp.exists() and stamp.read_text() == digest


def _note(places: Places, name: str, digest: str) -> None:
    (places.venv / f"{name}.stamp").write_text(digest)
