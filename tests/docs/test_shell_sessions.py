"""Sessions of a page are read and compared as they say, and run in one shell."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from e2e.stage.shell import Shell
from tests.docs.pages import ROOT
from tests.docs.sessions import Step, alike, steps

PAGE = """\
```console
$ one
a
b
$ two
```
```sh
not run
```
```console
$ three
c
```
"""


def test_the_steps_of_a_page_are_read_in_order() -> None:
    assert list(steps(PAGE)) == [
        Step("one", ("a", "b"), 2),
        Step("two", (), 5),
        Step("three", ("c",), 11),
    ]


def test_what_is_printed_before_anything_was_typed_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="line 2"):
        list(steps("```console\nx\n```\n"))


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        pytest.param("a   b", "a b", True, id="spaces"),
        pytest.param("a b", "a c", False, id="another word"),
        pytest.param("", "", True, id="nothing"),
        pytest.param("", "a", False, id="something instead of nothing"),
        pytest.param("a", "", False, id="nothing instead of something"),
        pytest.param("x 48s", "x 3m20s", True, id="ages"),
        pytest.param("x 2/2", "x 1/2", False, id="shares are none"),
        pytest.param("failed 0", "failed 3", False, id="none is not some"),
        pytest.param("failed 0", "failed 0", True, id="none is none"),
        pytest.param("2 v1", "37 v1", True, id="numbers"),
        pytest.param("2 v1", "2 v2", False, id="a version is no number"),
        pytest.param("in 38.4 s (76/s)", "in 7.0 s (8/s)", True, id="a rate"),
        pytest.param("e3-serve-7xk2p Active", "e3-serve-abcde Active", True, id="made-up names"),
        pytest.param("tiny-e3 created", "tiny-e3 unchanged", True, id="what apply says"),
        pytest.param("tiny-e3 created", "tiny-e4 created", False, id="another object"),
        pytest.param("...\nb", "x\ny\nb", True, id="any lines"),
        pytest.param("...\nb", "b", True, id="no line is any lines, too"),
        pytest.param("...\nb\n...", "x\nc", False, id="a line that is not there"),
        pytest.param("a ...", "a b c", True, id="any words"),
        pytest.param("a ...", "b c", False, id="other words before any"),
    ],
)
def test_what_is_printed_is_compared(shown: str, printed: str, expected: bool) -> None:
    assert alike(shown.splitlines(), printed.splitlines()) is expected


def test_a_shell_keeps_variables_and_jobs(tmp_path: Path) -> None:
    with Shell(tmp_path) as shell:
        assert shell.run("X=one") == ([], 0)
        assert shell.run("echo $X; echo two >&2") == (["one", "two"], 0)
        assert shell.run("sleep 600 & kill $!; wait; echo over > said; cat said") == (["over"], 0)
        assert shell.run("printf 'no end'; false") == (["no end"], 1)


def test_what_runs_in_a_shell_is_ended_with_it(tmp_path: Path) -> None:
    with Shell(tmp_path) as shell:
        (number,), _ = shell.run("sleep 600 & echo $!")
    while not ended(number):  # killed, but the kernel may not have got to it yet
        time.sleep(0.01)


def ended(number: str) -> bool:
    """Say whether a process has ended, be it that nobody has asked for its exit code yet."""
    try:
        said = Path("/proc", number, "stat").read_text()
    except FileNotFoundError:
        return True
    return said.rpartition(")")[2].split()[0] == "Z"


def test_the_quickstart_can_be_read() -> None:
    read = list(steps((ROOT / "docs" / "quickstart.md").read_text()))

    assert len(read) > 10
    assert all(alike(step.printed, step.printed) for step in read)
