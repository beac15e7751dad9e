"""`kubectl moe completion`: what a shell reads, or the program that kubectl asks."""

from __future__ import annotations

import os
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Final

from kubectl_moe.advice import Step
from kubectl_moe.decide import Refused
from kubectl_moe.health import Exit
from kubectl_moe.names import UsageError
from kubectl_moe.session import Session

NAME: Final = "kubectl_complete-moe"
_PROGRAM: Final = """\
#!/bin/sh
# Made by `kubectl moe completion --install`: kubectl asks it what may stand at the cursor.
exec kubectl-moe __complete "$@"
"""
_LOADED: Final = {
    "bash": "source <(kubectl-moe completion bash)",
    "zsh": "source <(kubectl-moe completion zsh)",
    "fish": "kubectl-moe completion fish | source",
}


def completion(args: Namespace, session: Session) -> Exit:
    """Print a shell's script, or install the program. Raises UsageError and Refused."""
    if args.install is not None:
        path = _install(_folder(args.install))
        session.say(f"kubectl completes `kubectl moe` by {path}")
        if str(path.parent) not in os.environ.get("PATH", "").split(os.pathsep):
            session.say(f"warning: {path.parent} is not in PATH, where kubectl looks for it")
        shell = Path(os.environ.get("SHELL", "bash")).name
        load = (
            "source <(kubectl completion {0})"
            if shell != "fish"
            else "kubectl completion {0}|source"
        )
        session.advise([Step(load.format(shell), "kubectl's own completion, if it is not loaded")])
    elif args.shell:
        session.print(Path(__file__).with_name("shells").joinpath(f"{args.shell}.txt").read_text())
        session.advise([Step(_LOADED[args.shell], "load it")])
    else:
        raise UsageError("name a shell (bash, zsh or fish), or say --install")
    return Exit.HEALTHY


def _folder(named: str) -> Path:
    """Return the folder that was named, else that of kubectl-moe. Raises UsageError."""
    if named:
        return Path(named).expanduser().absolute()
    found = shutil.which("kubectl-moe")
    if found is None:
        raise UsageError("kubectl-moe is not in PATH; name a folder that is: --install FOLDER")
    return Path(found).absolute().parent


def _install(folder: Path) -> Path:
    """Write the program where there is none. Raises Refused."""
    path = folder / NAME
    try:
        there = path.read_text(errors="replace") if path.exists() else ""
        if there and "kubectl_moe" not in there and there != _PROGRAM:
            raise Refused(
                f"{path} is there and is another's; name another folder: --install FOLDER"
            )
        if not there:
            path.write_text(_PROGRAM)
            path.chmod(0o755)
    except OSError as error:
        text = f"{path} cannot be written ({error.strerror}); name another folder: --install FOLDER"
        raise Refused(text) from error
    return path
