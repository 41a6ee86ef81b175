"""The exporters of one run's spans and metrics."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Final, Self

from opentelemetry import context as otel_context
from opentelemetry.trace import NoOpTracerProvider, TracerProvider
from prometheus_client import CollectorRegistry

from forwardscope.cli.gateway_delivery import GatewayDelivery
from forwardscope.cli.local_delivery import EndpointDelivery, FileDelivery
from forwardscope.cli.targets import OtlpTarget, needs_sdk, otlp_target
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.suite.observer import Observer, Observers, RunStarted
from forwardscope.suite.result import Delivery, ProbeResult
from forwardscope.suite.run_metrics import RunMetrics
from forwardscope.suite.spec import SuiteSpec
from forwardscope.telemetry import context_from_environment, register, unregister
from forwardscope.telemetry.http import shown_url
from forwardscope.text import plural, printable

if TYPE_CHECKING:
    from forwardscope.cli.metric_delivery import MetricDelivery
    from forwardscope.cli.span_delivery import SpanDelivery
    from forwardscope.sweep import SweepMetrics

__all__ = ["PublishObserver", "Telemetry"]

#: Probes whose gauges are published each second; a probe has nine.
_PROBES_PER_S: Final = 100
#: Time that all exporters together may take after a run.
_CLOSE_S: Final = 4.5
#: Part of it that is left for pushes when the spans are delivered.
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
        sweep: Gauges of the sweep that the runs are of, if any; they observe it themselves.

    Raises:
        UserError: A port is in use, a URL is not valid, or an extra is missing.

    Attributes:
        tracer_provider: For the backend's instrumentation; makes nothing without spans.
        observer: Receives the events of the run.
    """

    def __init__(self, spec: SuiteSpec, sweep: SweepMetrics | None = None) -> None:
        self._settings: Final = spec.telemetry
        self._metrics = RunMetrics(spec)
        self._run_registry = CollectorRegistry()  # pushed and written to the file
        self._scrape_registry = CollectorRegistry()  # also has the backend's metrics; also for OTLP
        self._sweep = sweep
        for registry in (self._run_registry, self._scrape_registry):
            registry.register(self._metrics)
            if sweep is not None:
                registry.register(sweep)
        self._instrumentation: BackendInstrumentation | None = None
        self._spans: SpanDelivery | None = None
        self._endpoint: EndpointDelivery | None = None
        self._otlp_metrics: MetricDelivery | None = None
        self._lasting: list[GatewayDelivery | FileDelivery] = []  # what they have outlasts a run
        self._finished = False
        self._otlp_url = self._otlp_metrics_url = ""
        self.tracer_provider: TracerProvider = NoOpTracerProvider()
        self.observer: Final[Observer] = Observers(
            self._metrics,
            PublishObserver(self.publish, math.inf if sweep else _interval_s(spec)),
            PublishObserver(self._send_metrics, math.inf),  # the start; it sends again by itself
        )
        self._exit_stack = ExitStack()

    def __enter__(self) -> Self:
        settings = self._settings
        self._open_lasting()
        with ExitStack() as opening:
            opening.push(self._finish_unless_opened)
            self._open_spans()
            if self._spans is not None:
                opening.callback(self._spans.close, 0.0)
            if settings.metrics_port is not None:
                address, port = settings.metrics_address, settings.metrics_port
                self._endpoint = EndpointDelivery(self._scrape_registry, address, port)
                opening.callback(self._endpoint.close)
            self._open_otlp_metrics()
            if self._otlp_metrics is not None:
                opening.callback(self._otlp_metrics.close, 0.0)
            token = otel_context.attach(context_from_environment())
            opening.callback(otel_context.detach, token)
            self._exit_stack = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._finished:
            self.finish(linger=False)  # the run could not start
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
        return self.has_counters or self._spans is not None or bool(self._lasting)

    @property
    def notice(self) -> str | None:
        """What a user should know of the chosen exporters; None if nothing."""
        return None if self._otlp_metrics is None or self._lasting else _NO_ALERTS

    def watch(self, instrumentation: BackendInstrumentation) -> None:
        """Export a backend's metrics, and count the outcomes of its spans.

        It takes the place of the backend before, whose run has ended.
        """
        if self._instrumentation is not None:
            unregister(self._instrumentation, self._scrape_registry)
        self._instrumentation = instrumentation
        instrumentation.spans.delivery = self._spans
        register(instrumentation, self._scrape_registry)

    def finish(self, *, linger: bool = True) -> list[Delivery]:
        """Deliver the remaining spans and metrics within a few seconds; return the outcomes.

        A run that has not begun by now is delivered as one that could not start, except where
        adapters of its sweep have ended: they were resumed, or run elsewhere.

        Args:
            linger: Whether to wait for a last scrape, if the settings have it.
        """
        self._finished = True
        deadline = time.monotonic() + _CLOSE_S
        deliveries = []
        if not self._metrics.started and not (self._sweep and self._sweep.has_adapters):
            self._metrics.run_finished(None)
            self.publish()  # before the spans take their time
        if self._instrumentation is not None:
            self._instrumentation.spans.close(_HIT_SPANS_CLOSE_S)
        pushers = [*filter(None, [self._otlp_metrics]), *self._lasting]
        if self._spans is not None:
            self._spans.close(_remaining(deadline) - (_PUSH_CLOSE_S if pushers else 0.0))
            deliveries.append(self._spans_delivery(self._spans))
        for one in pushers:  # at the same time; the last values have the outcomes of spans
            one.begin_close()
        if self._otlp_metrics is not None:
            failure = self._otlp_metrics.close(_remaining(deadline))
            deliveries.append(self._metrics_delivery(self._otlp_metrics, failure))
        deliveries += [one.close(deadline) for one in self._lasting]
        if self._endpoint is not None:
            seconds = self._settings.metrics_linger if linger else 0.0
            deliveries.append(self._endpoint.linger(seconds))
        return deliveries

    def end_linger(self) -> None:
        """End the wait for a last scrape, now or when it begins. Thread-safe."""
        if self._endpoint is not None:
            self._endpoint.end_linger()

    # -- opening ------------------------------------------------------------------------

    def _open_lasting(self) -> None:
        url, path = self._settings.pushgateway, self._settings.metrics_file
        if url is not None:
            self._lasting.append(GatewayDelivery(url, self._run_registry, self._metrics))
        if path is not None:
            self._lasting.append(FileDelivery(path, self._run_registry))

    def _finish_unless_opened(self, error: type[BaseException] | None, *_: object) -> None:
        """Report that the run could not start, if an exporter cannot be opened."""
        if error is not None:
            self.finish(linger=False)

    # -- OTLP ---------------------------------------------------------------------------

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

    # -- during the run -----------------------------------------------------------------

    def publish(self) -> None:
        """Request that the gauges are pushed and written, without waiting for it."""
        for one in self._lasting:
            one.publish()

    def _send_metrics(self) -> None:
        if self._otlp_metrics is not None:
            self._otlp_metrics.push()


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


def _interval_s(spec: SuiteSpec) -> float:
    """Return the least time between two publications; those of a sweep publish by themselves."""
    return max(1.0, len(spec.probes) / _PROBES_PER_S)


def _remaining(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
