"""Starts a worker: `python -m moe_worker --help`."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

from moe_core.log import tell, write_to_stderr
from moe_core.tls import BadTls
from moe_worker.settings import parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the settings, and only then import what is large.

    Collecting garbage while torch is imported costs half as much again, and finds nothing.
    """
    settings = parse(sys.argv[1:] if arguments is None else arguments, os.environ)
    write_to_stderr(settings.log_format)
    gc.disable()
    from moe_worker.program import run

    gc.freeze()
    gc.enable()
    try:
        return run(settings, tell)
    except (OSError, RuntimeError, BadTls) as error:
        tell("cannot_start", reason=str(error))
        return 1


if __name__ == "__main__":
    # A thread may still be inside torch, around which the interpreter cannot be taken down.
    os._exit(main())
