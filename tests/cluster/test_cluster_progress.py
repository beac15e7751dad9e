"""A person sees what goes on, what went wrong, and where to read on."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from cluster.progress import Progress, StepFailed

PYTHON = sys.executable


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def progress(tmp_path: Path, out: io.StringIO) -> Progress:
    return Progress(tmp_path / "logs" / "step.log", out)


def test_a_step_says_its_name_and_its_time(progress: Progress, out: io.StringIO) -> None:
    with progress.step("polishing"):
        pass
    assert re.fullmatch(r"\[ +\d+\.\ds\] polishing: 0\.\ds\n", out.getvalue())


def test_a_step_that_fails_says_so(progress: Progress, out: io.StringIO) -> None:
    with pytest.raises(ValueError, match="no"), progress.step("polishing"):
        raise ValueError("no")
    assert "polishing: stopped after" in out.getvalue()


def test_a_program_gets_its_input_and_environment(progress: Progress) -> None:
    code = "import os, sys; print(sys.stdin.read() + os.environ['COLOUR'])"
    assert progress.run([PYTHON, "-c", code], stdin="sky ", env={"COLOUR": "blue"}) == "sky blue\n"


def test_a_program_without_input_does_not_wait_for_any(progress: Progress) -> None:
    assert progress.run([PYTHON, "-c", "import sys; print(repr(sys.stdin.read()))"]) == "''\n"


def test_the_end_of_what_a_failing_program_wrote_is_shown(
    tmp_path: Path, progress: Progress
) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    with pytest.raises(StepFailed, match="ended with 3:") as failed:
        progress.run([PYTHON, "-c", code])
    for part in ("out", "err", str(tmp_path / "logs" / "step.log")):
        assert part in str(failed.value)


def test_a_program_that_is_not_there_is_named(progress: Progress) -> None:
    with pytest.raises(StepFailed, match="the program no-such-program is not there"):
        progress.run(["no-such-program"])
    assert not progress.succeeds(["no-such-program"])


def test_a_program_that_takes_too_long_is_ended(progress: Progress) -> None:
    with pytest.raises(StepFailed, match=r"sleep 600 took more than 0\.1 s"):
        progress.run(["sleep", "600"], timeout_s=0.1)


def test_an_interruption_ends_a_program_with_all_that_it_started(
    tmp_path: Path, progress: Progress
) -> None:
    child = tmp_path / "child"
    # What it reads is written when it is being waited for: no interruption before that.
    script = f"read line; sleep 600 & echo $! > {child}; kill -INT $PPID; wait"
    with pytest.raises(KeyboardInterrupt):
        progress.run(["sh", "-c", script], stdin="go\n")
    while lives(int(child.read_text())):
        pass


def lives(process: int) -> bool:
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_ctrl_c_in_the_terminal_does_not_reach_a_program_that_cleans_up(
    tmp_path: Path, progress: Progress
) -> None:
    group = progress.run([PYTHON, "-c", "import os; print(os.getpgrp())"])
    assert int(group) != os.getpgrp()
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
