"""Starts a real Prometheus on loopback, which scrapes what its configuration says."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

from prometheus_client import CollectorRegistry, start_http_server

# The labels of a series, and its values.
Series = tuple[dict[str, str], list[float]]

_READY_WITHIN_S = 60.0
_ONE_EXPORTER = """
global: {scrape_interval: 200ms, scrape_timeout: 200ms}
scrape_configs: [{job_name: test, static_configs: [{targets: ["127.0.0.1:%d"]}]}]
"""


@contextmanager
def exporting(registry: CollectorRegistry) -> Iterator[int]:
    """Serve the registry's metrics on loopback, and give the port."""
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def of_exporter(port: int) -> str:
    """Return the configuration that scrapes an exporter on loopback several times a second."""
    return _ONE_EXPORTER % port


class PrometheusServer:
    """A Prometheus of its own, in a folder of its own; a context manager.

    When it is entered, at least one of the targets of its configuration has been scraped.
    """

    def __init__(self, program: Path, folder: Path, configuration: str) -> None:
        self._program = program
        self._folder = folder
        self._configuration = configuration
        self._stack = ExitStack()
        self.url = ""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.url = f"http://127.0.0.1:{_free_port()}"
            process = self._start(stack)
            self._await_scrape(process)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def stop(self) -> None:
        """End the program; what is asked of it from here on has no answer."""
        self._stack.close()

    def ask(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of each series that a query gives. Raises HTTPError."""
        text = urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{text}", timeout=30) as answer:
            found = json.load(answer)["data"]["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]

    def ask_range(self, query: str, seconds: float, step_s: float) -> list[Series]:
        """Return labels and values of each series in the last seconds. Raises HTTPError."""
        now = time.time()
        asked = {"query": query, "start": now - seconds, "end": now, "step": step_s}
        text = urllib.parse.urlencode(asked)
        with urllib.request.urlopen(f"{self.url}/api/v1/query_range?{text}", timeout=60) as answer:
            found = json.load(answer)["data"]["result"]
        return [(one["metric"], [float(value) for _, value in one["values"]]) for one in found]

    def exemplars(self, query: str) -> list[dict[str, str]]:
        """Return the labels of the exemplars of the last minute. Raises HTTPError."""
        now = time.time()
        text = urllib.parse.urlencode({"query": query, "start": now - 60, "end": now + 1})
        asked = f"{self.url}/api/v1/query_exemplars?{text}"
        with urllib.request.urlopen(asked, timeout=30) as answer:
            found = json.load(answer)["data"]
        return [one["labels"] for series in found for one in series["exemplars"]]

    @property
    def _log(self) -> Path:
        return self._folder / "prometheus.log"

    def _start(self, stack: ExitStack) -> subprocess.Popen[bytes]:
        config = self._folder / "prometheus.yml"
        config.write_text(self._configuration)
        log = stack.enter_context(self._log.open("wb"))
        process = subprocess.Popen(
            [
                str(self._program),
                f"--config.file={config}",
                "--enable-feature=exemplar-storage",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self._folder,
        )
        stack.callback(_stop, process)
        return process

    def _await_scrape(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < until and process.poll() is None:
            with suppress(OSError):  # refused, reset, or not yet ready
                if self._has_scraped():
                    return
            time.sleep(0.05)
        tail = self._log.read_text(errors="replace")[-2000:]
        raise TimeoutError(f"Prometheus ended or has scraped nothing in time:\n{tail}")

    def _has_scraped(self) -> bool:
        return bool(self.ask("up == 1"))


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
