"""The stack of docker-compose.yml without Docker: its own files, with other addresses."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from .processes import (
    Prometheus,
    Pushgateway,
    Server,
    run_alertmanager,
    run_pushgateway,
    serve_prometheus,
)


@dataclass(frozen=True)
class Stack:
    """Servers that know each other.

    Attributes:
        prometheus: With the rules; it scrapes each second.
        gateway: Scraped by it.
        alertmanager: Told by it.
        targets: The folder where Prometheus looks for more to scrape.
    """

    prometheus: Prometheus
    gateway: Pushgateway
    alertmanager: Server
    targets: Path

    def scrape(self, *addresses: str) -> None:
        """Add targets, as a user does: by a file."""
        file = self.targets / f"{len(list(self.targets.iterdir()))}.yml"
        file.write_text(yaml.safe_dump([{"targets": list(addresses)}]))


@contextmanager
def run_stack(
    root: Path,
    folder: Path,
    *,
    webhook: str = "http://127.0.0.1:9/",
    rules_every: str = "",
    alerts_held: str = "5m",
    alerts_after: str = "",
) -> Iterator[Stack]:
    """Run Prometheus, Pushgateway and Alertmanager with the files of a folder.

    Args:
        root: Where `dashboards/` is.
        folder: For what is adapted, and for what they store.
        webhook: Who is told of alerts.
        rules_every: How often rules that have a pace of their own are evaluated;
            as they say, where it is empty.
        alerts_held: How long alerts fire on after their condition has ended.
        alerts_after: How long a condition holds before its alert on a run fires; as they say,
            where it is empty.
    """
    shutil.copytree(root / "dashboards" / "prometheus", folder / "prometheus")
    receiver = _alertmanager(root, folder, webhook)
    with (
        run_pushgateway(folder) as gateway,
        run_alertmanager(folder, receiver) as alertmanager,
    ):
        config = _prometheus(folder / "prometheus", gateway, alertmanager)
        if rules_every:
            _pace(folder / "prometheus" / "recording.yml", rules_every)
        alerts = folder / "prometheus" / "alerts-runs.yml"
        held = alerts.read_text().replace("keep_firing_for: 5m", f"keep_firing_for: {alerts_held}")
        if alerts_after:
            held = held.replace("for: 1m", f"for: {alerts_after}")
        alerts.write_text(held)
        with serve_prometheus(folder, config) as prometheus:
            yield Stack(prometheus, gateway, alertmanager, config.parent / "targets")


def _prometheus(folder: Path, gateway: Server, alertmanager: Server) -> Path:
    """Put our addresses in place of the containers', and scrape and evaluate each second."""
    config = folder / "prometheus.yml"
    text = config.read_text()
    for container, server in (
        ("pushgateway:9091", gateway),
        ("alertmanager:9093", alertmanager),
    ):
        assert container in text
        text = text.replace(container, urlsplit(server.url).netloc)
    content = yaml.safe_load(text)
    content["global"] = {
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "evaluation_interval": "1s",
    }
    for job in content["scrape_configs"]:
        job.pop("dns_sd_configs", None)  # there is no container to look for
    config.write_text(yaml.safe_dump(content))
    return config


def _pace(rules: Path, every: str) -> None:
    content = yaml.safe_load(rules.read_text())
    for group in content["groups"]:
        group["interval"] = every
    rules.write_text(yaml.safe_dump(content))


def _alertmanager(root: Path, folder: Path, webhook: str) -> Path:
    """Give its one receiver a webhook, and tell it at once."""
    content = yaml.safe_load((root / "dashboards/alertmanager/alertmanager.yml").read_text())
    content["route"] |= {"group_wait": "1s", "group_interval": "1s"}
    (receiver,) = content["receivers"]
    receiver["webhook_configs"] = [{"url": webhook}]
    config = folder / "alertmanager.yml"
    config.write_text(yaml.safe_dump(content))
    return config


@dataclass(frozen=True)
class Webhook:
    """Somebody who is told of alerts.

    Attributes:
        url: Where.
        told: What each alert said, in the order of arrival.
    """

    url: str
    told: list[dict[str, Any]]


@contextmanager
def listen() -> Iterator[Webhook]:
    """A webhook that keeps what it is told."""
    told: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.extend(body["alerts"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing of a request."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Webhook(f"http://127.0.0.1:{server.server_port}/", told)
    finally:
        server.shutdown()
        server.server_close()
