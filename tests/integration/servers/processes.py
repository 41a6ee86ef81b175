"""Real servers on free ports: asked whether they are ready, ended by their process id."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

from prometheus_client.parser import text_string_to_metric_families

PATIENCE_S = 300.0
SCRAPE_EVERY_S = 0.2
_PACKAGES = "prometheus prometheus-pushgateway prometheus-alertmanager nodejs npm"

T = TypeVar("T")
#: Values by name and labels, the latter without those of the scrape.
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def free_port() -> int:
    """A port of this machine where nothing listens just now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def until(
    look: Callable[[], T], what: str, patience_s: float = PATIENCE_S, every_s: float = 0.02
) -> T:
    """Look again and again until there is something to see; a server not there yet is nothing."""
    deadline = time.monotonic() + patience_s
    seen: object = None
    while time.monotonic() < deadline:
        try:
            found = look()
        except (OSError, http.client.HTTPException) as error:
            seen = error
        else:
            if found:
                return found
            seen = found
        time.sleep(every_s)
    raise AssertionError(f"{what}: not within {patience_s:g} s, last seen: {seen!r}")


def get(url: str, accept: str = "*/*") -> str:
    """The body of a page; any status but 200 is an error."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}", headers={"Accept": accept})
        answer = connection.getresponse()
        body = answer.read().decode("utf-8")
    finally:
        connection.close()
    if answer.status != 200:
        raise ConnectionError(f"{url}: HTTP {answer.status}: {body[:500]}")
    return body


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """The key of one sample."""
    return name, frozenset(labels.items())


def parse(text: str, without: Sequence[str] = ()) -> Samples:
    """Read the samples of an exposition, but for labels that do not matter."""
    return {
        key(one.name, **{k: v for k, v in one.labels.items() if k not in without}): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def program(name: str) -> str:
    """Where a program is; one that is missing is a failure."""
    found = shutil.which(name)
    if found is None:
        raise AssertionError(f"{name} is missing: apt-get install {_PACKAGES}")
    return found


class Server:
    """A process that serves HTTP.

    Attributes:
        url: Where.
    """

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.url = url
        self._process = process

    def freeze(self) -> None:
        """Take all its time away: connections still succeed, answers never come."""
        self._process.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        """End it now."""
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait()


class Pushgateway(Server):
    """A Pushgateway."""

    def samples(self) -> Samples:
        """What it shows, but for its own metrics."""
        shown = parse(get(f"{self.url}/metrics"))
        return {one: value for one, value in shown.items() if one[0].startswith("forwardscope_")}

    def groups(self) -> list[dict[str, Any]]:
        """The groups that were pushed to, each with its labels and push times."""
        return list(json.loads(get(f"{self.url}/api/v1/metrics"))["data"])


class Prometheus(Server):
    """A Prometheus that scrapes what it was made for."""

    def ask(self, path: str, **parameters: object) -> Any:
        """Ask its HTTP API; anything but success is an error."""
        answer = json.loads(get(f"{self.url}/api/v1/{path}?{urlencode(parameters)}"))
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, promql: str) -> Samples:
        """The result of an instant query."""
        result = self.ask("query", query=promql)["result"]
        return {_key_of(one["metric"]): float(one["value"][1]) for one in result}


@contextmanager
def run_pushgateway(folder: Path) -> Iterator[Pushgateway]:
    """A Pushgateway that remembers nothing beyond the test."""
    options = ["--persistence.file="]
    with _serving("prometheus-pushgateway", options, folder) as (process, url):
        yield Pushgateway(process, url)


@contextmanager
def run_prometheus(folder: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """A Prometheus that scrapes some hosts and ports."""
    config = folder / "prometheus.yml"
    scrape = {
        "job_name": "tested",
        "scrape_interval": f"{int(SCRAPE_EVERY_S * 1000)}ms",
        "scrape_timeout": f"{int(SCRAPE_EVERY_S * 1000)}ms",
        "static_configs": [{"targets": list(targets)}],
    }
    config.write_text(json.dumps({"scrape_configs": [scrape]}))
    with serve_prometheus(folder, config) as server:
        yield server


@contextmanager
def run_alertmanager(folder: Path, config: Path) -> Iterator[Server]:
    """An Alertmanager without peers."""
    options = [
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager'}",
        "--cluster.listen-address=",
    ]
    with _serving("prometheus-alertmanager", options, folder) as (process, url):
        yield Server(process, url)


@contextmanager
def serve_prometheus(folder: Path, config: Path) -> Iterator[Prometheus]:
    """A Prometheus with exemplars."""
    options = [
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        "--enable-feature=exemplar-storage",
    ]
    with _serving("prometheus", options, folder) as (process, url):
        yield Prometheus(process, url)


@contextmanager
def _serving(
    name: str, options: Sequence[str], folder: Path
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    address = f"127.0.0.1:{free_port()}"
    command = [program(name), f"--web.listen-address={address}", *options]
    log = folder / f"{name}.log"
    with log.open("wb") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said, env=_quiet())
    try:
        url = f"http://{address}"
        until(lambda: process.poll() is not None or get(f"{url}/-/ready"), f"{name} is ready")
        assert process.poll() is None, log.read_text()
        yield process, url
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _quiet() -> dict[str, str]:
    """An environment without a proxy between the servers of a test."""
    return {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}


def _key_of(metric: dict[str, str]) -> tuple[str, frozenset[tuple[str, str]]]:
    scraped = ("__name__", "job", "instance")
    labels = {name: value for name, value in metric.items() if name not in scraped}
    return key(metric.get("__name__", ""), **labels)
