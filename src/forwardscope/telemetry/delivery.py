"""Metrics delivery to a Pushgateway or a text file.

A pusher has a thread of its own, so it does not delay a run. A failed push
raises nothing: `Pusher.close` returns the reason.
"""

from __future__ import annotations

import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from forwardscope.files import replace_content
from forwardscope.telemetry.http import (
    address_of,
    authorization,
    root_cause,
    secrets_of,
    send,
    untraced,
)
from forwardscope.text import printable

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = [
    "JOB",
    "NO_ANSWER",
    "PUSH_EVERY_S",
    "PeriodicPusher",
    "Pusher",
    "run_with_timeout",
    "write_metrics_file",
]

#: Value of the label `job` of all pushed metrics.
JOB: Final = "forwardscope"
#: Reason of a last push that did not end in time.
NO_ANSWER: Final = "no answer in time"

#: Interval of pushes, and of writing the metrics file, in seconds.
PUSH_EVERY_S: Final = 10.0
_PUSH_TIMEOUT_S = 4.0


class PeriodicPusher:
    """Calls a function every few seconds, on request, and at the end.

    One thread makes all calls; only `close` waits for it.

    Args:
        send: Sends the current values; returns why that failed, or None.
        every_s: Interval, in seconds.
    """

    def __init__(self, send: Callable[[], str | None], every_s: float) -> None:
        self._send_values = send
        self._every_s = every_s
        self._changed = threading.Condition()
        self._wanted = 0
        self._tried = 0
        self._pushes = 0
        self._failure: str | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="forwardscope-push", daemon=True)
        self._thread.start()

    @property
    def pushes(self) -> int:
        """Pushes that the server accepted."""
        return self._pushes

    def push(self) -> None:
        """Request a push without waiting for it."""
        with self._changed:
            self._wanted += 1
            self._changed.notify_all()

    def begin_close(self) -> None:
        """Request the last push without waiting for it."""
        with self._changed:
            self._wanted += 1
            self._closing = True
            self._changed.notify_all()

    def close(self, timeout_s: float) -> str | None:
        """Push a last time, unless that was requested; return why that push failed, or None."""
        if not self._closing:
            self.begin_close()
        with self._changed:
            goal = self._wanted
            if not self._changed.wait_for(lambda: self._tried >= goal, timeout_s):
                return self._failure or NO_ANSWER
            return self._failure

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted > self._tried, self._every_s)
                goal = self._wanted
                last = self._closing
            failure = self._send_values()
            with self._changed:
                self._tried = goal
                self._failure = failure
                self._pushes += failure is None
                self._changed.notify_all()
                if last and self._tried == self._wanted:
                    return


class Pusher(PeriodicPusher):
    """Pushes a registry to a Pushgateway during a run and at its end.

    Pushes are POST requests, so a metric that a push lacks (the last success,
    after a failed run) keeps its value at the gateway.

    Args:
        url: URL of the gateway; a user and password in it are sent as basic
            authentication, to this server alone.
        registry: Registry to push.
        labels: Labels that form the group at the gateway, together with `job`.
    """

    def __init__(self, url: str, registry: CollectorRegistry, labels: Mapping[str, str]) -> None:
        self.url: Final = url
        self._registry = registry
        self._labels = dict(_grouping(*label) for label in labels.items())
        super().__init__(self._push, PUSH_EVERY_S)

    def _push(self) -> str | None:
        from prometheus_client import pushadd_to_gateway  # noqa: PLC0415 - registers collectors

        address = address_of(self.url)
        try:
            with untraced():
                pushadd_to_gateway(
                    address, JOB, self._registry, self._labels, _PUSH_TIMEOUT_S, self._send
                )
        except Exception as error:  # noqa: BLE001 - no failure ends the run
            return root_cause(error, secrets_of(self.url))
        return None

    def _send(
        self,
        url: str,
        method: str,
        timeout: float | None,
        headers: Sequence[tuple[str, str]],
        data: bytes,
    ) -> Callable[[], object]:
        """Return a function that sends a request, as prometheus_client wants it."""
        full = urlsplit(url)._replace(query=urlsplit(self.url).query).geturl()
        sent = {**dict(headers), **authorization(self.url)}
        secrets = secrets_of(self.url)
        return partial(send, method, full, sent, data, timeout or _PUSH_TIMEOUT_S, secrets=secrets)


def run_with_timeout(timeout_s: float, call: Callable[[], object]) -> bool:
    """Call a function in a daemon thread; return whether it ended in time.

    An exception of it is dropped, because no exporter may fail a run.
    """

    def work() -> None:
        with suppress(Exception):
            call()

    thread = threading.Thread(target=work, name="forwardscope-bounded", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no more threads can be started
        return False
    thread.join(timeout_s)
    return not thread.is_alive()


def write_metrics_file(path: Path, registry: CollectorRegistry) -> None:
    """Write a registry to a file for node_exporter's textfile collector.

    Raises:
        OSError: The file cannot be written; an existing file is unchanged.
    """
    from prometheus_client import generate_latest  # noqa: PLC0415 - import registers collectors

    replace_content(path, generate_latest(registry))


def _grouping(name: str, value: str) -> tuple[str, str]:
    """Return the name and value of a label for the path of a push.

    prometheus_client encodes a slash and a space. A value of dots alone would be
    taken for a folder of the path.
    """
    if value in (".", ".."):
        return f"{name}@base64", urlsafe_b64encode(value.encode()).decode("ascii").rstrip("=")
    return name, printable(value)
