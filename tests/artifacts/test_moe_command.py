"""`moe` as a person runs it: what it prints, its exit codes, and what an interruption leaves."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from moe_artifacts.__main__ import main
from moe_artifacts.artifact import sha256_of_file
from moe_artifacts.errors import Refused
from moe_artifacts.progress import Meter, human_bytes
from moe_artifacts.whole_files import write_whole
from tests.artifacts.models import index_of, make_model, save_expert, slices_of
from tests.artifacts.samples import EXPERT, GATE, write_artifact
from tests.support.command import run_command


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("in") / "Tiny Model_1"
    make_model().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def split_out(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    assert main(["split", str(checkpoint), str(out), "--mixture", "tiny"]) == 0
    return out


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, what was printed, and what was complained of."""
    return run_command(main, capsys, *arguments)


def test_split_says_what_it_made_and_what_to_do_next(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, tmp_path: Path
) -> None:
    code, out, complaints = run(capsys, "split", checkpoint, tmp_path / "o")
    assert (code, complaints) == (0, "")
    lines = out.splitlines()
    first = index_of(tmp_path / "o").entries[0]
    assert lines[0].split() == ["e0", "Routed", "v1", first.sha256[:10], "5.3", "kB", "written"]
    assert lines[-1] == f"6 manifests: kubectl apply -f {tmp_path}/o/manifests"
    assert index_of(tmp_path / "o").mixture == "tiny-model-1"


def test_split_takes_the_name_of_its_base(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, split_out: Path, tmp_path: Path
) -> None:
    code, out, _ = run(capsys, "split", checkpoint, tmp_path, "--base", split_out)
    assert code == 0
    assert out.splitlines()[-1] == "no manifests: nothing changed"
    assert index_of(tmp_path).mixture == "tiny"


def test_split_with_every_option(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, split_out: Path, tmp_path: Path
) -> None:
    file = save_expert(tmp_path / "x.safetensors", slices_of(make_model(), 2))
    settings = tmp_path / "settings.yaml"
    settings.write_text("")
    options = (
        f"--mixture tiny --base {split_out} --version blue --replace e0={file} --dense d={file} "
        f"--only e0,d --dtype BFloat16 --uri-prefix http://host/a/ --replicas 0 "
        f"--manifests {settings}"
    )
    code, out, _ = run(capsys, "split", checkpoint, tmp_path / "o", *options.split())
    assert code == 0
    versions = [line.split()[2] for line in out.splitlines()[:6]]
    assert versions == ["blue", "v1", "v1", "v1", "blue", "v1"]
    assert "uri: 'http://host/a/e0-" in (tmp_path / "o/manifests/e0.yaml").read_text()
    assert "replicas: 0" in (tmp_path / "o/manifests/e0.yaml").read_text()


def test_inspect_prints_for_people_and_programs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = write_artifact(tmp_path / "x.safetensors", EXPERT)
    code, out, _ = run(capsys, "inspect", path)
    assert code == 0
    assert f"sha256            {sha256_of_file(path)}" in out
    assert "  layers.2.down_proj       4 x 6" in out
    code, out, _ = run(capsys, "inspect", "-o", "json", path)
    facts = json.loads(out)
    assert code == 0
    assert facts["tensors"]["layers.0.up_proj"] == [6, 4]
    assert (facts["kind"], facts["layers"], facts["dtype"]) == ("expert", [0, 2], "BFloat16")
    assert facts["sha256"] == sha256_of_file(path)


def test_verify_looks_at_everything_and_names_what_is_bad(
    capsys: pytest.CaptureFixture[str], split_out: Path, tmp_path: Path
) -> None:
    good = write_artifact(tmp_path / "good.safetensors", GATE)
    code, out, complaints = run(capsys, "verify", split_out, good)
    assert (code, complaints, out.count(": ok\n")) == (0, "", 6)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nothing")
    code, out, complaints = run(capsys, "verify", bad, good)
    assert (code, out) == (1, f"{good}: ok\n")
    assert complaints.startswith(f"moe: {bad}: the file has 7 bytes")


def test_verify_compares_digests(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write_artifact(tmp_path / "x.safetensors", GATE)
    assert run(capsys, "verify", path, "--sha256", sha256_of_file(path))[0] == 0
    code, _, complaints = run(capsys, "verify", path, "--sha256", "0" * 64)
    assert code == 1
    assert f"{'0' * 64} was asked for" in complaints


def test_verify_finds_a_file_that_is_not_the_one_listed(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, tmp_path: Path
) -> None:
    assert run(capsys, "split", checkpoint, tmp_path, "--mixture", "tiny")[0] == 0
    one, two = (tmp_path / str(entry.file) for entry in index_of(tmp_path).entries[:2])
    one.write_bytes(two.read_bytes())
    two.unlink()
    code, out, complaints = run(capsys, "verify", tmp_path)
    assert (code, out.count(": ok\n")) == (1, 3)
    assert f"{one}: sha256 is" in complaints
    assert f"{two} cannot be read" in complaints


@pytest.mark.parametrize(
    ("command", "message"),
    [
        pytest.param("", "required: COMMAND", id="no command"),
        pytest.param("merge", "invalid choice: 'merge'", id="unknown command"),
        pytest.param("split", "required: CHECKPOINT, OUT", id="nothing to split"),
        pytest.param("split /none x", "CHECKPOINT: '/none' is no directory", id="no checkpoint"),
        pytest.param("split . x --base /none", "--base: '/none' is no directory", id="no base"),
        pytest.param("split . x --mixture A_b", "--mixture: it is 'A_b'; it must", id="mixture"),
        pytest.param(f"split . x --mixture {'a' * 51}", "at most 50", id="long mixture"),
        pytest.param("split . x --version -", "--version: it is '-'; it must", id="hyphen"),
        pytest.param("split . x --version .1", "--version: it is '.1'; it must", id="version"),
        pytest.param("split . x --replicas -1", "--replicas: it is '-1'", id="minus one"),
        pytest.param("split . x --replicas 1.5", "--replicas: it is '1.5'", id="half a pod"),
        pytest.param("split . x --replicas 1025", "a number from 0 to 1024", id="too many pods"),
        pytest.param("split . x --dtype int4", "--dtype: invalid choice: 'int4'", id="dtype"),
        pytest.param("split . x --uri-prefix /a", "it must be file:///path, http", id="prefix"),
        pytest.param("split . x --replace E1=f", "--replace: it is 'E1'", id="replaced id"),
        pytest.param("split . x --only e0,,e1", "--only: it is ''", id="empty id"),
        pytest.param("golden x", "required: INPUT", id="no text"),
        pytest.param("golden x y --length 0", "--length: it is '0'", id="no length"),
        pytest.param("inspect x -o yaml", "invalid choice: 'yaml'", id="output"),
        pytest.param("verify x --sha256 abc", "it is 'abc'; it must be 64", id="digest"),
    ],
)
def test_a_wrong_command_line_is_explained(
    capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    code, _, complaints = run(capsys, *command.split())
    assert code == 2
    assert message in complaints


@pytest.mark.parametrize(
    ("command", "message"),
    [
        pytest.param("split {} {}", "config.json cannot be read", id="no checkpoint"),
        pytest.param("inspect /none", "/none cannot be read", id="no artifact"),
        pytest.param("verify {}", "has no index.json", id="no index"),
    ],
)
def test_a_failure_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str, message: str
) -> None:
    code, out, complaints = run(capsys, *command.replace("{}", str(tmp_path)).split())
    assert (code, out) == (1, "")
    assert complaints.startswith("moe: ")
    assert message in complaints
    assert complaints.count("\n") == 1


@pytest.mark.parametrize("command", [[], ["split"], ["golden"], ["inspect"], ["verify"]], ids=str)
def test_help_is_there(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    code, out, _ = run(capsys, *command, "--help")
    assert code == 0
    assert out.startswith(f"usage: moe {' '.join(command)}".rstrip())


# -- interruptions -------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, OSError])
@pytest.mark.parametrize("before", [None, b"whole"], ids=["new", "there already"])
def test_an_interruption_leaves_no_half_file(
    tmp_path: Path, error: type[BaseException], before: bytes | None
) -> None:
    path = tmp_path / "sub" / "x"
    if before is not None:
        write_whole(path, [before])

    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise error

    with pytest.raises(Refused if error is OSError else error):
        write_whole(path, pieces())
    expected = {} if before is None else {path: before}
    assert {p: p.read_bytes() for p in path.parent.iterdir()} == expected


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_signal_leaves_no_half_file(
    tmp_path: Path, checkpoint: Path, number: signal.Signals, code: int
) -> None:
    """The signal comes while an artifact is being written: the child sends it to itself."""
    program = (
        "import os, sys; from pathlib import Path\n"
        "from moe_artifacts.__main__ import main; from moe_artifacts.progress import Meter\n"
        "class Interrupting(Meter):\n"
        "    def add(self, count):\n"
        "        if list(Path(sys.argv[2]).glob('.*')): os.kill(os.getpid(), int(sys.argv[3]))\n"
        "sys.exit(main(['split', *sys.argv[1:3], '--mixture', 'tiny'], Interrupting))"
    )
    paths = [str(checkpoint), str(tmp_path / "o")]
    command = [sys.executable, "-c", program, *paths, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert list((tmp_path / "o").iterdir()) == []


def test_progress_is_silent_for_two_seconds_and_then_tells_every_two() -> None:
    seconds = iter([0, 0.5, 1.9, 2.0, 3.9, 4.1])
    out = io.StringIO()
    meter = Meter("moe split", 10_000, out, lambda: next(seconds))
    for _ in range(5):
        meter.add(1000)
    lines = ["moe split: 30 % of 10.0 kB, 2 s", "moe split: 50 % of 10.0 kB, 4 s"]
    assert out.getvalue().splitlines() == lines


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_345_678, "12.3 MB"), (10**14, "100.0 TB")],
)
def test_sizes_are_for_people(count: int, text: str) -> None:
    assert human_bytes(count) == text
