"""`python -m tests.chaos.inside …`: a worker within the network namespace of a wire."""

from __future__ import annotations

import os
import sys

from tests.chaos.wire import NAMESPACE

if __name__ == "__main__":
    within = ["ip", "netns", "exec", os.environ[NAMESPACE]]
    os.execvp(within[0], [*within, sys.executable, "-m", "moe_worker", *sys.argv[1:]])
