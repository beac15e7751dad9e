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
                for name in (*prometheus.PROGRAMS, "tsdb"):
                    (folder / name).write_text(f"{name} out of {(cwd / file).name}")
            case other:
                raise AssertionError(other)
        return ""


def nowhere(name: str) -> None:
    """Find nothing on PATH."""


LOOK = "apt-get --print-uris download prometheus"
GET = ["apt-get download prometheus", f"dpkg-deb --extract {PACKAGE} root"]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places.of(tmp_path, {"MOE_LOCAL_CACHE": str(tmp_path / "cache")})


def test_the_package_is_unpacked_once_and_nothing_else_of_it_is_kept(
    tmp_path: Path, places: Places
) -> None:
    apt = Apt(tmp_path)
    programs = prometheus.ensure(places, lambda name: f"/usr/bin/{name}", apt)
    assert {name: path.read_text() for name, path in programs.items()} == {
        name: f"{name} out of {PACKAGE}" for name in ("prometheus", "promtool")
    }
    assert set(programs["promtool"].parent.iterdir()) == set(programs.values())
    assert prometheus.ensure(places, nowhere, apt) == programs
    assert apt.ran == [LOOK, *GET, LOOK]


def test_another_version_is_another_program(tmp_path: Path, places: Places) -> None:
    old = prometheus.ensure(places, nowhere, Apt(tmp_path))
    new = prometheus.ensure(places, nowhere, Apt(tmp_path, "prometheus_3.5.0_arm64.deb"))
    assert old["prometheus"].name == PACKAGE.removesuffix(".deb")
    assert [path.name for path in new.values()] == [
        "prometheus_3.5.0_arm64",
        "promtool_3.5.0_arm64",
    ]
    assert all(path.exists() for path in old.values())


def test_what_is_missing_of_what_was_kept_is_unpacked_again(tmp_path: Path, places: Places) -> None:
    kept = prometheus.ensure(places, nowhere, Apt(tmp_path))
    kept["promtool"].unlink()
    apt = Apt(tmp_path)
    assert prometheus.ensure(places, nowhere, apt) == kept
    assert kept["promtool"].exists()
    assert apt.ran == [LOOK, *GET]


def test_lists_that_are_missing_are_fetched(tmp_path: Path, places: Places) -> None:
    apt = Apt(tmp_path, listed=False)
    assert prometheus.ensure(places, nowhere, apt)["prometheus"].exists()
    assert apt.ran == [LOOK, "apt-get update", LOOK, *GET]


def test_without_a_package_the_programs_on_path_are_used(tmp_path: Path, places: Places) -> None:
    for name in ("prometheus", "promtool"):
        (tmp_path / name).write_text("theirs")
        (tmp_path / f"{name}-link").symlink_to(tmp_path / name)
    found = prometheus.ensure(
        places, lambda name: str(tmp_path / f"{name}-link"), Apt(tmp_path, offers="")
    )
    assert found == {name: (tmp_path / name).resolve() for name in ("prometheus", "promtool")}


def test_where_there_is_none_it_is_said_what_is_missing_and_why(
    tmp_path: Path, places: Places
) -> None:
    with pytest.raises(StepFailed, match="missing: prometheus and promtool") as failed:
        prometheus.ensure(places, nowhere, Apt(tmp_path, offers=""))
    for part in ("sudo apt-get update", "https://prometheus.io/download", "Unable to locate"):
        assert part in str(failed.value)


@pytest.mark.parametrize("said", ["", "W: x", "'http://deb.example/p.deb'", "'http://x' p.rpm 1"])
def test_an_answer_that_names_no_package(said: str) -> None:
    with pytest.raises(StepFailed, match="it must name the file of a package"):
        prometheus.read_file_name(said)
