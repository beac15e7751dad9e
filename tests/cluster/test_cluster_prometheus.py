"""A Prometheus is taken out of Debian's package once, and else found on PATH or asked for."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from cluster import prometheus
from cluster.places import Places
from cluster.progress import Progress, StepFailed

PACKAGE = "prometheus_2.42.0+ds-5_amd64.deb"


class Apt(Progress):
    """Has apt-get and dpkg-deb of its own, and counts what is run; `offers` is apt's package."""

    def __init__(self, folder: Path, offers: str = PACKAGE, *, listed: bool = True) -> None:
        super().__init__(folder / "logs" / "binaries.log", io.StringIO())
        self.offers = offers
        self.listed = listed
        self.ran: list[str] = []

    def run(
        self,
        command: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        timeout_s: float | None = None,
    ) -> str:
        self.ran.append(" ".join(map(str, command)))
        match list(command):
            case ["apt-get", "update"]:
                self.listed = True
            case ["apt-get", *_] if not (self.listed and self.offers):
                raise StepFailed("E: Unable to locate package prometheus")
            case ["apt-get", "--print-uris", "download", "prometheus"]:
                return f"'http://deb.example/{self.offers}' {self.offers} 19257088 SHA256:81d5\n"
            case ["apt-get", "download", "prometheus"]:
                assert cwd is not None
                (cwd / self.offers).write_text("package")
            case ["dpkg-deb", "--extract", file, target]:
                assert cwd is not None
                folder = cwd / target / "usr" / "bin"
                folder.mkdir(parents=True)
                (folder / "prometheus").write_text(f"out of {(cwd / file).name}")
            case other:
                raise AssertionError(other)
        return ""


LOOK = "apt-get --print-uris download prometheus"
GET = ["apt-get download prometheus", f"dpkg-deb --extract {PACKAGE} root"]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places.of(tmp_path, {"MOE_LOCAL_CACHE": str(tmp_path / "cache")})


def test_the_package_is_unpacked_once_and_nothing_else_of_it_is_kept(
    tmp_path: Path, places: Places
) -> None:
    apt = Apt(tmp_path)
    program = prometheus.ensure(places, "/usr/bin/prometheus", apt)
    assert program.read_text() == f"out of {PACKAGE}"
    assert list(program.parent.iterdir()) == [program]
    assert prometheus.ensure(places, None, apt) == program
    assert apt.ran == [LOOK, *GET, LOOK]


def test_another_version_is_another_program(tmp_path: Path, places: Places) -> None:
    old = prometheus.ensure(places, None, Apt(tmp_path))
    new = prometheus.ensure(places, None, Apt(tmp_path, "prometheus_3.5.0_arm64.deb"))
    assert [p.name for p in (old, new)] == [PACKAGE.removesuffix(".deb"), "prometheus_3.5.0_arm64"]
    assert old.exists()


def test_lists_that_are_missing_are_fetched(tmp_path: Path, places: Places) -> None:
    apt = Apt(tmp_path, listed=False)
    assert prometheus.ensure(places, None, apt).exists()
    assert apt.ran == [LOOK, "apt-get update", LOOK, *GET]


def test_without_a_package_the_program_on_path_is_used(tmp_path: Path, places: Places) -> None:
    (tmp_path / "prometheus").write_text("theirs")
    (tmp_path / "link").symlink_to(tmp_path / "prometheus")
    found = prometheus.ensure(places, str(tmp_path / "link"), Apt(tmp_path, offers=""))
    assert found == (tmp_path / "prometheus").resolve()


def test_where_there_is_none_it_is_said_what_is_missing_and_why(
    tmp_path: Path, places: Places
) -> None:
    with pytest.raises(StepFailed, match="missing: prometheus") as failed:
        prometheus.ensure(places, None, Apt(tmp_path, offers=""))
    for part in ("sudo apt-get update", "https://prometheus.io/download", "Unable to locate"):
        assert part in str(failed.value)


@pytest.mark.parametrize("said", ["", "W: x", "'http://deb.example/p.deb'", "'http://x' p.rpm 1"])
def test_an_answer_that_names_no_package(said: str) -> None:
    with pytest.raises(StepFailed, match="it must name the file of a package"):
        prometheus.read_file_name(said)
