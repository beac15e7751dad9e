"""Pictures of the dashboards are drawn of what a real Prometheus answers."""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboards.pictures.__main__ import main
from dashboards.pictures.sheets import Sheet, read
from dashboards.places import FOLDER
from tests.prometheus.everything import registry
from tests.prometheus.server import PrometheusServer, exporting, of_exporter
from tests.prometheus.test_prometheus_dashboards import PROGRAM

SHEETS = {path.stem: read(json.loads(path.read_text())) for path in FOLDER.glob("*.json")}
_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("pictures")
    with (
        exporting(registry()) as port,
        PrometheusServer(PROGRAM, folder, of_exporter(port)) as server,
    ):
        yield server.url


@pytest.fixture(scope="module")
def pictures(address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw until all is there: a rate wants two scrapes, and one that was late leaves a hole."""
    folder = tmp_path_factory.mktemp("out")
    until = time.monotonic() + _WITHIN_S
    while True:
        assert main(["--prometheus", address, "--out", str(folder), "--minutes", "1"]) == 0
        if not any("No data" in words(path) for path in folder.glob("*.svg")):
            return folder
        assert time.monotonic() < until, "panels without data"
        time.sleep(0.5)


def words(file: Path) -> list[str]:
    """Return all texts of an SVG."""
    return [each.text or "" for each in ET.parse(file).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", sorted(SHEETS))
def test_every_panel_of_a_dashboard_is_drawn_with_data(name: str, pictures: Path) -> None:
    sheet: Sheet = SHEETS[name]
    said = words(pictures / f"{name}.svg")

    for panel in sheet.panels:
        begin = panel.title[:20]
        assert any(word.startswith(begin) for word in said), panel.title


def test_there_is_a_picture_of_each_dashboard_and_no_other(pictures: Path) -> None:
    files = {f"{name}.svg" for name in SHEETS}

    assert {path.name for path in pictures.iterdir()} == {*files, "README.md"}
    assert all(f"({name})" in (pictures / "README.md").read_text() for name in files)


def test_a_variable_can_be_chosen(address: str, tmp_path: Path) -> None:
    chosen = ["--set", "expert=nobody", "--minutes", "1"]

    assert main(["--prometheus", address, "--out", str(tmp_path), *chosen]) == 0
    assert "No data" in words(tmp_path / "expert.svg")


def test_a_prometheus_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--prometheus", "http://127.0.0.1:1", "--out", str(tmp_path)]) == 1
    assert "http://127.0.0.1:1 does not answer" in capsys.readouterr().err


def test_what_a_prometheus_refuses_is_told(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["--rate-interval", "soon"]

    assert main(["--prometheus", address, "--out", str(tmp_path), *wrong]) == 1
    assert "refuses" in capsys.readouterr().err
