"""Where one run's spans and metrics go, from before the model loads to after the end."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from opentelemetry import context as otel_context
from prometheus_client import CollectorRegistry

from forwardscope.cli.targets import check_url, otlp_target, without_credentials
from forwardscope.errors import MissingExtraError, OutputError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.suite.observer import Observer, Observers, RunStarted
from forwardscope.suite.result import Delivery, ProbeResult
from forwardscope.suite.run_metrics import RunMetrics
from forwardscope.suite.spec import SuiteSpec
from forwardscope.telemetry import context_from_environment, register
from forwardscope.telemetry.delivery import MetricsEndpoint, Pusher, write_metrics_file

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from forwardscope.cli.span_delivery import SpanDelivery

__all__ = ["Telemetry"]

#: All ways out together keep the program no longer than this after a run.
_CLOSE_S: Final = 4.5
_PUSH_RESERVE_S: Final = 1.5
_MAKE_SPANS_S: Final = 1.5


class Telemetry:
    """One run's spans and metrics on their ways out.

    A context manager: what it opened is closed at its end. Nothing that fails
    on the way out makes the run fail; `finish` tells it.

    Args:
        spec: What is run; `spec.telemetry` says where to.

    Raises:
        UserError: A port is taken, a URL is none, or an extra is missing.

    Attributes:
        tracer_provider: For the backend's instrumentation; None without spans.
        observer: To be told how the run goes on.
    """

    def __init__(self, spec: SuiteSpec) -> None:
        self._settings: Final = spec.telemetry
        self._metrics = RunMetrics(spec)
        self._of_run = CollectorRegistry()  # what is pushed and written
        self._all = CollectorRegistry()  # what is scraped
        self._of_run.register(self._metrics)
        self._all.register(self._metrics)
        self._instrumentation: BackendInstrumentation | None = None
        self._spans: SpanDelivery | None = None
        self._endpoint: MetricsEndpoint | None = None
        self._pusher: Pusher | None = None
        self._file_failure: str | None = None
        self._linger_ended = False
        self._otlp_url = ""
        self.tracer_provider: TracerProvider | None = None
        self.observer: Final[Observer] = Observers(self._metrics, _Republish(self._publish))
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            self._open_spans()
            if self._spans is not None:
                opening.callback(self._spans.close, 0.0)
            self._open_endpoint()
            if self._endpoint is not None:
                opening.callback(self._endpoint.close)
            self._open_pusher()
            token = otel_context.attach(context_from_environment())
            opening.callback(otel_context.detach, token)
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def endpoint_url(self) -> str | None:
        """Where the run can be scraped."""
        return None if self._endpoint is None else self._endpoint.url

    @property
    def wanted(self) -> bool:
        """Whether anything goes anywhere."""
        ways = (self._spans, self._endpoint, self._pusher, self._settings.metrics_file)
        return any(way is not None for way in ways)

    def watch(self, instrumentation: BackendInstrumentation) -> None:
        """Show a backend's metrics and account for its spans."""
        self._instrumentation = instrumentation
        instrumentation.spans.delivery = self._spans
        register(instrumentation, self._all)

    def finish(self, *, linger: bool = True) -> list[Delivery]:
        """Deliver what is left, at most a few seconds long, and say what arrived where.

        Args:
            linger: Wait for a last scrape, where the settings ask for it.
        """
        due = time.monotonic() + _CLOSE_S
        deliveries = []
        if self._instrumentation is not None:
            self._instrumentation.spans.close(_MAKE_SPANS_S)
        if self._spans is not None:
            reserve = _PUSH_RESERVE_S if self._pusher is not None else 0.0
            self._spans.close(_until(due) - reserve)
            deliveries.append(self._spans_delivery(self._spans))
        if self._pusher is not None:
            deliveries.append(self._push_delivery(self._pusher, self._pusher.close(_until(due))))
        if self._settings.metrics_file is not None:
            self._write_file(self._settings.metrics_file)
            deliveries.append(self._file_delivery(self._settings.metrics_file))
        if self._endpoint is not None:
            deliveries.append(self._scrapes_delivery(self._endpoint, linger=linger))
        return deliveries

    def end_linger(self) -> None:
        """End the wait for a last scrape, now or when it begins. Safe under threads."""
        self._linger_ended = True
        if self._endpoint is not None:
            self._endpoint.end_linger()

    # -- opening ------------------------------------------------------------------------

    def _open_spans(self) -> None:
        target = otlp_target(self._settings.otlp, self._settings.otlp_protocol)
        if target is None:
            return
        try:
            from forwardscope.cli import otlp, span_delivery  # noqa: PLC0415 - of an extra

            exporter = otlp.make_exporter(target)
        except ImportError as error:
            who = "otlp" if target.asked else "an OTEL_EXPORTER_OTLP_* variable"
            wanted = f"{who} asks for spans, and the OpenTelemetry SDK"
            raise MissingExtraError(wanted, "otel") from error
        self._otlp_url = without_credentials(target.url)
        self._spans = span_delivery.SpanDelivery(exporter)
        self.tracer_provider = otlp.make_provider(self._spans)

    def _open_endpoint(self) -> None:
        port, address = self._settings.metrics_port, self._settings.metrics_address
        if port is None:
            return
        try:
            self._endpoint = MetricsEndpoint(self._all, address, port)
        except OSError as error:
            raise OutputError(
                f"metrics cannot be served on {address} port {port}: {error.strerror}; "
                f"choose another {_to_choose(error)}"
            ) from error

    def _open_pusher(self) -> None:
        url = self._settings.pushgateway
        if url is not None:
            check_url("pushgateway", url, ("http", "https"), "http://127.0.0.1:9091")
            self._pusher = Pusher(url, self._of_run, self._metrics.labels)

    # -- as it goes ---------------------------------------------------------------------

    def _publish(self) -> None:
        if self._pusher is not None:
            self._pusher.push()
        if self._settings.metrics_file is not None:
            self._write_file(self._settings.metrics_file)

    def _write_file(self, path: str) -> None:
        try:
            write_metrics_file(Path(path), self._of_run)
        except OSError as error:
            self._file_failure = error.strerror or str(error)
        else:
            self._file_failure = None

    # -- what arrived where -------------------------------------------------------------

    def _spans_delivery(self, spans: SpanDelivery) -> Delivery:
        count = spans.outcomes()
        exported = sum(n for (_, outcome), n in count.items() if outcome == "exported")
        dropped = sum(n for (_, outcome), n in count.items() if outcome == "dropped")
        what = f"{exported} spans exported"
        if dropped:
            what += f", {dropped} dropped: {spans.failure or 'not delivered'}"
        return Delivery(to=f"OTLP {self._otlp_url}", what=what, ok=not dropped)

    def _push_delivery(self, pusher: Pusher, failure: str | None) -> Delivery:
        to = f"Pushgateway {without_credentials(pusher.url)}"
        if failure is not None:
            return Delivery(to=to, what=f"the run's end was not pushed: {failure}", ok=False)
        return Delivery(to=to, what=f"pushed {pusher.pushes} times", ok=True)

    def _file_delivery(self, path: str) -> Delivery:
        if self._file_failure is not None:
            return Delivery(to=path, what=f"not written: {self._file_failure}", ok=False)
        return Delivery(to=path, what="metrics written", ok=True)

    def _scrapes_delivery(self, endpoint: MetricsEndpoint, *, linger: bool) -> Delivery:
        seconds = self._settings.metrics_linger
        after, ok = "", True
        if linger and seconds > 0:
            ok = endpoint.linger(seconds)
            missed = f", not within {seconds:g} s after the end"
            if self._linger_ended:
                missed = ", not after the end: the wait was interrupted"
            after = ", also after the end" if ok else missed
        return Delivery(to=endpoint.url, what=f"scraped {endpoint.scrapes} times{after}", ok=ok)


class _Republish(Observer):
    """Sends a run's gauges on when it began and after each probe."""

    def __init__(self, publish: Callable[[], None]) -> None:
        self._publish = publish

    def run_started(self, run: RunStarted) -> None:  # noqa: ARG002 - the gauges know it
        self._publish()

    def probe_finished(self, result: ProbeResult) -> None:  # noqa: ARG002 - the gauges know it
        self._publish()


def _to_choose(error: OSError) -> str:
    """Name the option whose value is to blame for an endpoint that cannot be opened."""
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return "--metrics-address, one of this machine's own"
    return "--metrics-port, 0 takes a free one"


def _until(due: float) -> float:
    return max(0.0, due - time.monotonic())
