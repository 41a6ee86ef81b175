"""Delivery of a run's metrics on this machine: a file, and an endpoint for Prometheus."""

from __future__ import annotations

import errno
import socket
import time
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector

from forwardscope.errors import OutputError
from forwardscope.suite.result import Delivery
from forwardscope.telemetry.delivery import PUSH_EVERY_S, PeriodicPusher, write_metrics_file
from forwardscope.telemetry.endpoint import MetricsEndpoint
from forwardscope.text import plural

__all__ = ["EndpointDelivery", "FileDelivery"]


class FileDelivery:
    """Writes gauges to a file for node_exporter's textfile collector, also between requests.

    Args:
        path: The file.
        registry: Registry with the gauges.
    """

    def __init__(self, path: str, registry: CollectorRegistry) -> None:
        self._path = path
        self._registry = registry
        self._writer: PeriodicPusher | None = None

    def publish(self) -> None:
        """Request that the current values are written; the first call begins to write."""
        self._start().push()

    def begin_close(self) -> None:
        """Request that the last values are written, without waiting for it."""
        self._start().begin_close()

    def close(self, deadline: float) -> Delivery:
        """Wait for the last values until a time of `time.monotonic`; return the outcome."""
        failure = self._start().close(max(0.0, deadline - time.monotonic()))
        if failure is not None:
            return Delivery(to=self._path, what=f"not written: {failure}", ok=False)
        return Delivery(to=self._path, what="metrics written", ok=True)

    def _start(self) -> PeriodicPusher:
        if self._writer is None:
            self._writer = PeriodicPusher(self._write, PUSH_EVERY_S)
        return self._writer

    def _write(self) -> str | None:
        """Write the file; return why that failed, or None."""
        try:
            write_metrics_file(Path(self._path), self._registry)
        except OSError as error:
            return error.strerror or str(error)
        return None


class EndpointDelivery:
    """Serves metrics during a run, and after it until a last scrape.

    Args:
        registry: Registry to serve.
        address: Address to listen on.
        port: Port to listen on; 0 selects a free one.

    Raises:
        OutputError: The port is in use, or this machine does not have the address.
    """

    def __init__(self, registry: CollectorRegistry, address: str, port: int) -> None:
        try:
            self._endpoint = MetricsEndpoint(_with_process(registry), address, port)
        except (OSError, TypeError, ValueError) as error:  # TypeError: NUL in the address
            reason = getattr(error, "strerror", None) or error
            raise OutputError(
                f"metrics cannot be served on {address} port {port}: {reason}; "
                f"choose another {_option_to_change(error)}"
            ) from error
        self._linger_ended = False

    @property
    def place(self) -> str:
        """URL of the endpoint, and where it listens."""
        return self._endpoint.place

    def end_linger(self) -> None:
        """End the wait for a last scrape, now or when it begins. Thread-safe."""
        self._linger_ended = True
        self._endpoint.end_linger()

    def linger(self, seconds: float) -> Delivery:
        """Wait at most some seconds for a last scrape; return the outcome."""
        after, ok = "", True
        if seconds > 0:
            ok = self._endpoint.linger(seconds)
            if ok:
                after = ", also after the end"
            elif self._linger_ended:
                after = ", not after the end: the wait was interrupted"
            else:
                after = f", not within {seconds:g} s after the end"
        what = f"scraped {plural(self._endpoint.scrapes, 'time')}{after}"
        return Delivery(to=self.place, what=what, ok=ok)

    def close(self) -> None:
        """Stop listening."""
        self._endpoint.close()


def _option_to_change(error: Exception) -> str:
    """Return the option whose value caused the error, with a hint."""
    unknown = not isinstance(error, OSError) or isinstance(error, socket.gaierror)
    if unknown or getattr(error, "errno", None) == errno.EADDRNOTAVAIL:
        return "--metrics-address, an address of this machine"
    return "--metrics-port; 0 picks a free port"


def _with_process(served: CollectorRegistry) -> CollectorRegistry:
    """Return a registry that also has the `process_*` metrics.

    They are not pushed or written to the file: the Pushgateway and node_exporter have
    metrics of these names.
    """
    registry = CollectorRegistry()
    registry.register(served)
    ProcessCollector(registry=registry)
    return registry
