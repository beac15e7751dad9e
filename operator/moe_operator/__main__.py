"""Runs the operator until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence

from moe_core.log import tell, write_to_stderr
from moe_core.metrics_port import CannotListen
from moe_operator import access
from moe_operator.asking import GrpcAsker
from moe_operator.options import Options
from moe_operator.program import operate


async def run(options: Options) -> None:
    """Run the operator. Returns after SIGTERM; raises NoAccess and CannotListen."""
    operating = asyncio.create_task(operate(options, access.find, GrpcAsker))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, operating.cancel, number.name)
    try:
        await operating
    except asyncio.CancelledError as stopped:
        tell("stopped", signal=stopped)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 after SIGTERM, 2 where it cannot start."""
    options = Options.read(sys.argv[1:] if arguments is None else arguments, os.environ)
    if options.kubeconfig:
        os.environ["KUBECONFIG"] = options.kubeconfig
    write_to_stderr(options.log_format, options.log_level)
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLogger().level))
    try:
        asyncio.run(run(options))
    except (access.NoAccess, CannotListen) as error:
        print(f"moe_operator: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
