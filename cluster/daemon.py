"""Sees to it that a Docker daemon answers, and stops it again if it was started here.

A daemon that answers is used as it is. Where none does and no init system runs, one is started by
hand; it outlives this program. It is stopped only when no container is left and nobody works.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from cluster.locks import held, held_if_free
from cluster.places import Places
from cluster.prerequisites import find, require
from cluster.progress import Progress, StepFailed

CAP_SYS_RESOURCE = 24
_READY_WITHIN_S = 30.0
# Left behind by a daemon that was killed; a new one refuses to start while they are there.
_PID_FILES = ("/var/run/docker.pid", "/var/run/docker/containerd/containerd.pid")


def in_use(places: Places) -> Path:
    """The lock that is held, shared, while Docker is worked with."""
    return places.cache / "docker.lock"


def answers(progress: Progress) -> bool:
    """Tell whether a Docker daemon can be talked to."""
    return find("docker") is not None and progress.succeeds(["docker", "info"], timeout_s=20)


def ensure(places: Places, progress: Progress) -> None:
    """Have a Docker daemon that answers. Raises StepFailed saying what to do where none can be."""
    if answers(progress):
        return
    require(("docker", "dockerd", "iptables"), places, progress)
    with progress.step("starting Docker"), held(places.cache / "dockerd.start.lock"):
        if answers(progress):
            return
        if os.geteuid() != 0:
            raise StepFailed(
                "no Docker daemon answers; start it (sudo systemctl start docker) and see that "
                "you may use it (sudo usermod -aG docker $USER, then log in again)"
            )
        if Path("/run/systemd/system").is_dir():
            progress.run(["systemctl", "start", "docker"])
        else:
            _start_by_hand(places, progress)
        _await(places, progress)


def stop_if_idle(places: Places, progress: Progress) -> None:
    """Stop the daemon that was started by hand, unless somebody still needs it."""
    pid = _started_by_hand(places)
    if pid is None:
        return
    with held_if_free(in_use(places)) as alone:
        if not alone or progress.run(["docker", "ps", "--all", "--quiet"]).strip():
            return
        with progress.step("stopping Docker, which was started here and has no container left"):
            os.kill(pid, signal.SIGTERM)
            until = time.monotonic() + _READY_WITHIN_S
            while _runs(pid, "dockerd") and time.monotonic() < until:
                time.sleep(0.1)
        _pid_file(places).unlink(missing_ok=True)


def lacks_capability(status: str, bit: int) -> bool:
    """Tell from the text of /proc/self/status whether the bounding set lacks a capability."""
    line = next((line for line in status.splitlines() if line.startswith("CapBnd:")), None)
    return line is not None and not int(line.split()[1], 16) >> bit & 1


def _start_by_hand(places: Places, progress: Progress) -> None:
    for name in _PID_FILES:
        _remove_if_stale(Path(name))
    command = [find("dockerd") or "dockerd"]
    if lacks_capability(Path("/proc/self/status").read_text(), CAP_SYS_RESOURCE):
        require(("jq",), places, progress)
        command += ["--add-runtime", f"bounded={_bounded_runc(places)}"]
        command += ["--default-runtime", "bounded"]
    with (places.cache / "dockerd.log").open("ab") as log:
        daemon = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    _pid_file(places).write_text(str(daemon.pid))


def _await(places: Places, progress: Progress) -> None:
    until = time.monotonic() + _READY_WITHIN_S
    while not answers(progress):
        if time.monotonic() > until:
            raise StepFailed(f"Docker does not answer; its log is {places.cache / 'dockerd.log'}")
        time.sleep(0.2)


def _bounded_runc(places: Places) -> Path:
    """Put the wrapper where it outlives the checkout: the daemon calls it as long as it runs."""
    wrapper = places.cache / "runc-within-bounds"
    text = (places.root / "cluster" / "runc-within-bounds").read_text()
    if not wrapper.exists() or wrapper.read_text() != text:
        fresh = wrapper.with_suffix(f".{os.getpid()}")
        fresh.write_text(text)
        fresh.chmod(0o755)
        fresh.replace(wrapper)
    return wrapper


def _remove_if_stale(file: Path) -> None:
    try:
        pid = int(file.read_text())
    except (FileNotFoundError, ValueError):
        file.unlink(missing_ok=True)
        return
    if not _runs(pid, file.stem if file.stem != "docker" else "dockerd"):
        file.unlink(missing_ok=True)


def _runs(pid: int, program: str) -> bool:
    """Tell whether that process lives and is that program (process numbers are used again)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" and Path(f"/proc/{pid}/comm").read_text().strip() == program
    except (FileNotFoundError, ProcessLookupError):
        return False


def _pid_file(places: Places) -> Path:
    return places.cache / "dockerd.pid"


def _started_by_hand(places: Places) -> int | None:
    try:
        pid = int(_pid_file(places).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return pid if _runs(pid, "dockerd") else None
