"""`python -m moe_router`: reads the settings and runs a router until it is told to end."""

from __future__ import annotations

import os
import sys

import uvloop

from moe_core.log import write_to_stderr
from moe_router.edge import CannotStart
from moe_router.program import Router, sources, tracer
from moe_router.settings import BadSetting, Settings, parse


async def _run(settings: Settings) -> None:
    await Router(settings, *sources(settings), tracer(settings)).run()


def main() -> int:
    """Run; 0 after SIGTERM, 1 where it cannot run, 2 for wrong settings."""
    try:
        settings = parse(sys.argv[1:], os.environ)
    except BadSetting as error:
        print(f"moe_router: {error}", file=sys.stderr)
        return 2
    write_to_stderr(settings.log_format)
    try:
        uvloop.run(_run(settings))
    except CannotStart as error:
        print(f"moe_router: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
