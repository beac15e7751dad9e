"""Bounds the processor time of single processes, by control groups of the kernel.

So that a process that dies frees nobody else's processor, as where each has a node of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

_GROUPS: Final = Path("/sys/fs/cgroup")
_PERIOD_US: Final = 20_000  # short, or who has spent its time stands still for long
_GONE_S: Final = 5.0


class NoShares(RuntimeError):
    """This machine cannot bound them, and says why."""


@contextmanager
def shares(of: Mapping[int, float]) -> Iterator[None]:
    """Give each process (by id) so many cores at most, while the block runs. Raises NoShares."""
    with ExitStack() as stack:
        for pid, cores in of.items():
            stack.enter_context(_share(pid, cores))
        yield


@contextmanager
def _share(pid: int, cores: float) -> Iterator[None]:
    quota_us = round(cores * _PERIOD_US)
    first = (_GROUPS / "cpu").is_dir()  # the first version of control groups
    parent = _GROUPS / "cpu" if first else _GROUPS
    own = parent / f"moeops-test-{os.getpid()}-{pid}"
    try:
        if not first:
            (_GROUPS / "cgroup.subtree_control").write_text("+cpu")
        own.mkdir()
    except OSError as error:
        raise NoShares(f"no group in {parent}: {error.strerror}; it takes root") from error
    try:
        if first:
            (own / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (own / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (own / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
        (own / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        _remove(own, parent)


def _remove(own: Path, parent: Path) -> None:
    """Remove a group; who is still in it goes back to where it came from."""
    for pid in (own / "cgroup.procs").read_text().split():
        (parent / "cgroup.procs").write_text(pid)
    until = time.monotonic() + _GONE_S
    while True:
        try:
            return own.rmdir()
        except OSError:  # the kernel is still burying what ended in it
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
