"""The commands of docs/quickstart.md, one after another, print what the page says they print."""

from __future__ import annotations

from e2e.conftest import ROOT
from e2e.stage.shell import Shell
from e2e.stage.tiny import Tiny
from tests.docs.sessions import alike, steps

PAGE = ROOT / "docs" / "quickstart.md"


def test_the_quickstart_does_what_it_says(tiny: Tiny) -> None:
    """What the page has under *Set up* was done by what started this."""
    with Shell(ROOT) as shell:
        for step in steps(PAGE.read_text()):
            printed, code = shell.run(step.command)
            said = "\n".join(printed)
            assert alike(step.printed, printed), f"line {step.line}: {step.command}\n{said}"
            assert code == 0, f"line {step.line}: {step.command} ended with {code}\n{said}"
    assert tiny.expert()["spec"]["version"] == "v1"
