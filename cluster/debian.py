"""Makes small Debian root file systems out of packages, as the host itself would get them."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from cluster.progress import Command, Progress, StepFailed


def release() -> str:
    """Return the host's Debian release by name. Raises StepFailed elsewhere than on Debian."""
    described = platform.freedesktop_os_release()
    if described.get("ID") != "debian" or "VERSION_CODENAME" not in described:
        raise StepFailed(
            f"images can be built from packages on Debian only, this is {described.get('ID')}; "
            "with access to Docker Hub nothing has to be built"
        )
    return described["VERSION_CODENAME"]


def root_file_system(
    target: Path,
    packages: Sequence[str],
    variant: str,
    progress: Progress,
    hooks: Sequence[str] = (),
) -> None:
    """Write a tar archive with these packages and what they need, unless it is there.

    `variant` is mmdebstrap's: `minbase` has apt and is configured, `extract` is only unpacked.
    `hooks` are shell commands that get the unpacked tree as `$1`.
    """
    if target.exists():
        return
    fresh = target.with_suffix(".new.tar")
    command: Command = ["mmdebstrap", "--quiet", f"--variant={variant}"]
    command += [f"--aptopt={file}" for file in _apt_settings()]
    command += [f"--extract-hook={hook}" for hook in hooks]
    command += [f"--include={','.join(packages)}", release(), fresh, *_apt_sources()]
    progress.run(command, env={"SOURCE_DATE_EPOCH": "0"})
    fresh.replace(target)


def _apt_settings() -> list[Path]:
    """The host's apt settings: they may say how its mirror is reached."""
    files = sorted(Path("/etc/apt/apt.conf.d").glob("*"))
    return [file for file in files if "Acquire::" in file.read_text(errors="replace")]


def _apt_sources() -> list[Path]:
    names = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
    return [path for path in map(Path, names) if path.exists() and path.stat().st_size][:1]
