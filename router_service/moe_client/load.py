"""`python -m moe_client.load`: steady load on the routers of a mixture, and what it met.

Until its time is over, or it is interrupted (SIGINT) or told to end (SIGTERM); then it reports.
Ends with 0 if every request was answered, with 1 if some were not, or if there were none because
all sessions are on a gate that the recording has no choices of; with 2 for a wrong flag.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from moe_client.channel import Tls
from moe_client.errors import MoeError
from moe_client.figures import Report
from moe_client.recording import load_recording
from moe_client.steady import SteadyLoad


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        recording = None if given.recording is None else load_recording(given.recording)
    except (OSError, KeyError, ValueError) as error:
        parser.error(f"--recording {given.recording} cannot be read: {error}")
    try:
        tls = Tls(given.tls, given.tls_name) if given.tls else None
    except MoeError as error:
        parser.error(f"--tls {given.tls}: {error.message}")
    load = SteadyLoad(
        given.address,
        recording,
        mixture=given.mixture,
        sessions=given.sessions,
        rows=given.rows,
        requests_per_s=given.requests_per_s,
        timeout_s=given.timeout_s,
        credentials=tls,
        token=given.token,
    )
    try:
        with load:
            _let_pass(given.seconds)
            result = load.report()
    except MoeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _show(result, given.output)
    return 1 if result.failed or (result.passed_over and not result.requests) else 0


class _Ended(Exception):
    """Somebody interrupted this process or told it to end."""


def _let_pass(seconds: float) -> None:
    """Wait so long, or until the process is interrupted or told to end."""

    def heard(number: int, frame: FrameType | None) -> None:
        raise _Ended

    before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with suppress(_Ended):
            time.sleep(seconds)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(result: Report, output: str) -> None:
    text = json.dumps(result.to_dict()) if output == "json" else "\n".join(result.lines())
    print(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m moe_client.load", description=(__doc__ or "").partition("\n")[0]
    )
    add = parser.add_argument
    add("--address", action="append", required=True, help="host:port of a router; repeatable")
    add("--mixture", default="", help="default: the one that the routers serve")
    add("--recording", type=Path, help="requests to repeat; default: random ones")
    add("--seconds", type=_positive, default=10.0, help="how long (10)")
    add("--sessions", type=_count, default=4, help="that ask at the same time (4)")
    add("--rows", type=_count, default=1, help="rows in each message (1)")
    add("--requests-per-s", type=_positive, help="of all sessions; default: as fast as it goes")
    add("--timeout-s", type=_positive, default=5.0, help="of each request, with its retries (5)")
    add("--tls", default="", help="folder with ca.crt, tls.crt and tls.key: connect by TLS")
    add("--tls-name", default="", help="DNS name in the routers' certificate; default: the host")
    add("--token", help="of a tenant, where routers ask for one; default: that in MOE_TOKEN")
    add("-o", "--output", choices=("text", "json"), default="text")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"is {text}; it must be more than 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"is {text}; it must be 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
