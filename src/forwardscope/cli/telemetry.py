"""The exporters of one run's spans and metrics."""

from __future__ import annotations

import errno
import math
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

from opentelemetry import context as otel_context
from prometheus_client import CollectorRegistry, ProcessCollector

from forwardscope.cli import gateway
from forwardscope.cli.targets import OtlpTarget, check_url, needs_sdk, otlp_target
from forwardscope.errors import OutputError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.suite.observer import Observer, Observers, RunStarted
from forwardscope.suite.result import Delivery, ProbeResult
from forwardscope.suite.run_metrics import RunMetrics
from forwardscope.suite.spec import SuiteSpec
from forwardscope.telemetry import context_from_environment, register
from forwardscope.telemetry.delivery import (
    JOB,
    Pusher,
    run_with_timeout,
    write_metrics_file,
)
from forwardscope.telemetry.endpoint import MetricsEndpoint
from forwardscope.telemetry.http import shown_url
from forwardscope.text import plural, printable

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from forwardscope.cli.metric_delivery import MetricDelivery
    from forwardscope.cli.span_delivery import SpanDelivery

__all__ = ["PublishObserver", "Telemetry"]

#: Time that all exporters together may take after a run.
_T = TypeVar("_T")

#: Time to find the groups of a suite at the gateway.
_GATEWAY_S = 1.5
#: Probes whose gauges are published each second; a probe has nine.
_PROBES_PER_S: Final = 100
_CLOSE_S: Final = 4.5
_PUSH_CLOSE_S: Final = 1.5
_HIT_SPANS_CLOSE_S: Final = 1.5
_NO_ALERTS: Final = (
    "metrics go to OTLP alone, where a run's series end minutes after it: alerts on suites also "
    "need --pushgateway or --metrics-file"
)


class Telemetry:
    """Exports one run's spans and metrics, as its suite configures.

    A context manager that opens the exporters and closes them. A failed export does
    not fail the run; `finish` returns the outcome.

    Args:
        spec: The suite; `spec.telemetry` has the settings.

    Raises:
        UserError: A port is in use, a URL is not valid, or an extra is missing.

    Attributes:
        tracer_provider: For the backend's instrumentation; None without spans.
        observer: Receives the events of the run.
    """

    def __init__(self, spec: SuiteSpec) -> None:
        self._settings: Final = spec.telemetry
        self._metrics = RunMetrics(spec)
        self._run_registry = CollectorRegistry()  # pushed and written to the file
        self._scrape_registry = CollectorRegistry()  # also has the backend's metrics; also for OTLP
        self._run_registry.register(self._metrics)
        self._scrape_registry.register(self._metrics)
        self._instrumentation: BackendInstrumentation | None = None
        self._spans: SpanDelivery | None = None
        self._endpoint: MetricsEndpoint | None = None
        self._pusher: Pusher | None = None
        self._otlp_metrics: MetricDelivery | None = None
        self._group: dict[str, str] = {}
        self._file_failure: str | None = None
        self._linger_ended = False
        self._otlp_url = self._otlp_metrics_url = ""
        self.tracer_provider: TracerProvider | None = None
        self.observer: Final[Observer] = Observers(
            self._metrics,
            PublishObserver(self._publish, max(1.0, len(spec.probes) / _PROBES_PER_S)),
            PublishObserver(self._send_metrics, math.inf),  # the start; it sends again by itself
        )
        self._exit_stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            self._open_spans()
            if self._spans is not None:
                opening.callback(self._spans.close, 0.0)
            self._open_endpoint()
            if self._endpoint is not None:
                opening.callback(self._endpoint.close)
            self._check_gateway()
            self._open_otlp_metrics()
            if self._otlp_metrics is not None:
                opening.callback(self._otlp_metrics.close, 0.0)
            token = otel_context.attach(context_from_environment())
            opening.callback(otel_context.detach, token)
            self._exit_stack = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit_stack.close()

    @property
    def endpoint_place(self) -> str | None:
        """URL of the metrics endpoint, and where it listens; None without an endpoint."""
        return None if self._endpoint is None else self._endpoint.place

    @property
    def has_counters(self) -> bool:
        """Whether the backend's counters are exported."""
        return self._endpoint is not None or self._otlp_metrics is not None

    @property
    def enabled(self) -> bool:
        """Whether any spans or metrics are exported."""
        settings = (self._settings.pushgateway, self._settings.metrics_file)
        return self.has_counters or any(one is not None for one in (self._spans, *settings))

    @property
    def notice(self) -> str | None:
        """What a user should know of the chosen exporters; None if nothing."""
        lasting = (self._settings.pushgateway, self._settings.metrics_file) != (None, None)
        return None if self._otlp_metrics is None or lasting else _NO_ALERTS

    def watch(self, instrumentation: BackendInstrumentation) -> None:
        """Export a backend's metrics, and count the outcomes of its spans."""
        self._instrumentation = instrumentation
        instrumentation.spans.delivery = self._spans
        register(instrumentation, self._scrape_registry)

    def finish(self, *, linger: bool = True) -> list[Delivery]:
        """Deliver the remaining spans and metrics within a few seconds; return the outcomes.

        A run that has not begun by now is delivered as one that could not start.

        Args:
            linger: Whether to wait for a last scrape, if the settings have it.
        """
        deadline = time.monotonic() + _CLOSE_S
        deliveries = []
        if not self._metrics.started:
            self._metrics.run_finished(None)
            self._start_pushing()
        if self._instrumentation is not None:
            self._instrumentation.spans.close(_HIT_SPANS_CLOSE_S)
        pushers = [one for one in (self._otlp_metrics, self._pusher) if one is not None]
        if self._spans is not None:
            reserve = _PUSH_CLOSE_S if pushers else 0.0
            self._spans.close(_remaining(deadline) - reserve)
            deliveries.append(self._spans_delivery(self._spans))
        for one in pushers:  # at the same time; the last values have the outcomes of spans
            one.begin_close()
        if self._otlp_metrics is not None:
            failure = self._otlp_metrics.close(_remaining(deadline))
            deliveries.append(self._metrics_delivery(self._otlp_metrics, failure))
        if self._pusher is not None:
            failure = self._pusher.close(_remaining(deadline))
            if failure is None:  # if this fails, the next run that passes tries again
                url = self._pusher.url
                _within(_remaining(deadline), lambda: self._delete_superseded(url))
            deliveries.append(self._push_delivery(self._pusher, failure))
        if self._settings.metrics_file is not None:
            self._write_file(self._settings.metrics_file)
            deliveries.append(self._file_delivery(self._settings.metrics_file))
        if self._endpoint is not None:
            deliveries.append(self._scrapes_delivery(self._endpoint, linger=linger))
        return deliveries

    def end_linger(self) -> None:
        """End the wait for a last scrape, now or when it begins. Thread-safe."""
        self._linger_ended = True
        if self._endpoint is not None:
            self._endpoint.end_linger()

    # -- opening ------------------------------------------------------------------------

    def _open_spans(self) -> None:
        target = otlp_target(self._settings.otlp, self._settings.otlp_protocol)
        if target is None:
            return
        with _sdk_for(target, "otlp"):
            from forwardscope.cli import otlp, otlp_provider, span_delivery  # noqa: PLC0415

            exporter = otlp.make_exporter(target)
        self._otlp_url = shown_url(target.url)
        self._spans = span_delivery.SpanDelivery(exporter)
        self.tracer_provider = otlp_provider.make_provider(self._spans)

    def _open_endpoint(self) -> None:
        port, address = self._settings.metrics_port, self._settings.metrics_address
        if port is None:
            return
        try:
            self._endpoint = MetricsEndpoint(self._with_process(), address, port)
        except (OSError, TypeError, ValueError) as error:  # TypeError: NUL in the address
            reason = getattr(error, "strerror", None) or error
            raise OutputError(
                f"metrics cannot be served on {address} port {port}: {reason}; "
                f"choose another {_option_to_change(error)}"
            ) from error

    def _with_process(self) -> CollectorRegistry:
        """Return the registry to scrape, which also has the `process_*` metrics.

        They are not pushed or written to the file: the Pushgateway and node_exporter have
        metrics of these names.
        """
        registry = CollectorRegistry()
        registry.register(self._scrape_registry)
        ProcessCollector(registry=registry)
        return registry

    def _check_gateway(self) -> None:
        url = self._settings.pushgateway
        if url is not None:
            check_url("pushgateway", url, ("http", "https"), "http://127.0.0.1:9091")

    def _start_pushing(self) -> None:
        """Push in a group of the run's own while another run of the suite is active."""
        url, labels = self._settings.pushgateway, self._metrics.labels
        if url is None or self._pusher is not None:
            return
        main = {"job": JOB, **labels}
        found = _within(_GATEWAY_S, lambda: gateway.groups(url, labels)) or []
        if any(one.alive and one.labels == main for one in found):
            labels = {**labels, "instance": uuid.uuid4().hex[:12]}
        self._pusher = Pusher(url, self._run_registry, labels)
        self._group = {"job": JOB, **labels}

    def _delete_superseded(self, url: str) -> None:
        """After a run that passed, delete the suite's other runs that ended before it began."""
        since_s = self._metrics.passed_since_s
        if since_s is None:
            return
        for one in gateway.groups(url, self._metrics.labels):
            if one.ended_s is not None and one.ended_s < since_s and one.labels != self._group:
                gateway.delete(url, one)

    def _open_otlp_metrics(self) -> None:
        target = otlp_target(self._settings.otlp_metrics, None, signal="metrics")
        if target is None:
            return
        with _sdk_for(target, "otlp_metrics"):
            from forwardscope.cli import metric_delivery, otlp  # noqa: PLC0415

            exporter = otlp.make_exporter(target)
        self._otlp_metrics_url = shown_url(target.url)
        labels = self._metrics.labels
        instance = printable(f"{labels['suite']} on {labels['model']}")
        self._otlp_metrics = metric_delivery.MetricDelivery(
            exporter, self._scrape_registry, instance
        )

    # -- during the run -----------------------------------------------------------------

    def _publish(self) -> None:
        self._start_pushing()
        if self._pusher is not None:
            self._pusher.push()
        if self._settings.metrics_file is not None:
            self._write_file(self._settings.metrics_file)

    def _send_metrics(self) -> None:
        if self._otlp_metrics is not None:
            self._otlp_metrics.push()

    def _write_file(self, path: str) -> None:
        try:
            write_metrics_file(Path(path), self._run_registry)
        except OSError as error:
            self._file_failure = error.strerror or str(error)
        else:
            self._file_failure = None

    # -- outcomes -----------------------------------------------------------------------

    def _spans_delivery(self, spans: SpanDelivery) -> Delivery:
        counts = spans.outcomes()
        exported = sum(n for (_, outcome), n in counts.items() if outcome == "exported")
        dropped = sum(n for (_, outcome), n in counts.items() if outcome == "dropped")
        what = f"{plural(exported, 'span')} exported"
        if dropped:
            what += f", {dropped} dropped: {spans.failure or 'not delivered'}"
        return Delivery(to=f"OTLP {self._otlp_url}", what=what, ok=not dropped)

    def _metrics_delivery(self, metrics: MetricDelivery, failure: str | None) -> Delivery:
        to = f"OTLP metrics {self._otlp_metrics_url}"
        if failure is not None:
            return Delivery(to=to, what=f"the run's end was not sent: {failure}", ok=False)
        return Delivery(to=to, what=f"sent {plural(metrics.pushes, 'time')}", ok=True)

    def _push_delivery(self, pusher: Pusher, failure: str | None) -> Delivery:
        to = f"Pushgateway {shown_url(pusher.url)}"
        if failure is not None:
            return Delivery(to=to, what=f"the run's end was not pushed: {failure}", ok=False)
        return Delivery(to=to, what=f"pushed {plural(pusher.pushes, 'time')}", ok=True)

    def _file_delivery(self, path: str) -> Delivery:
        if self._file_failure is not None:
            return Delivery(to=path, what=f"not written: {self._file_failure}", ok=False)
        return Delivery(to=path, what="metrics written", ok=True)

    def _scrapes_delivery(self, endpoint: MetricsEndpoint, *, linger: bool) -> Delivery:
        seconds = self._settings.metrics_linger
        after, ok = "", True
        if linger and seconds > 0:
            ok = endpoint.linger(seconds)
            if ok:
                after = ", also after the end"
            elif self._linger_ended:
                after = ", not after the end: the wait was interrupted"
            else:
                after = f", not within {seconds:g} s after the end"
        what = f"scraped {plural(endpoint.scrapes, 'time')}{after}"
        return Delivery(to=endpoint.place, what=what, ok=ok)


class PublishObserver(Observer):
    """Publishes a run's gauges at its start and after probes, at most once in an interval.

    The gauges of all probes are published each time, so an interval that does not grow
    with their number would cost the square of it.

    Args:
        publish: Pushes and writes the gauges.
        every_s: The interval, in seconds.
    """

    def __init__(self, publish: Callable[[], None], every_s: float) -> None:
        self._publish = publish
        self._every_s = every_s
        self._due_s = 0.0

    def run_started(self, run: RunStarted) -> None:  # noqa: ARG002 - of the base class
        """Publish the start."""
        self._publish_if_due()

    def probe_finished(self, result: ProbeResult) -> None:  # noqa: ARG002 - of the base class
        """Publish the probes so far, if the interval is over."""
        self._publish_if_due()

    def _publish_if_due(self) -> None:
        if time.monotonic() >= self._due_s:
            self._publish()
            self._due_s = time.monotonic() + self._every_s


def _sdk_for(target: OtlpTarget, setting: str) -> AbstractContextManager[None]:
    """Return a context in which to import the SDK for a receiver."""
    named = setting if target.explicit else "an OTEL_EXPORTER_OTLP_* variable"
    return needs_sdk(f"{named} needs the OpenTelemetry SDK, which")


def _within(timeout_s: float, ask: Callable[[], _T]) -> _T | None:
    """Return what a request gives, or None if it fails or does not end in time.

    A push to the same server reports what is wrong with it.
    """
    found: list[_T] = []
    run_with_timeout(timeout_s, lambda: found.append(ask()))
    return found[0] if found else None


def _option_to_change(error: Exception) -> str:
    """Return the option whose value caused the error, with a hint."""
    unknown = not isinstance(error, OSError) or isinstance(error, socket.gaierror)
    if unknown or getattr(error, "errno", None) == errno.EADDRNOTAVAIL:
        return "--metrics-address, an address of this machine"
    return "--metrics-port; 0 picks a free port"


def _remaining(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
