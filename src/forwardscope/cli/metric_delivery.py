"""Delivery of a run's metrics to an OTLP receiver, with a bounded close."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.environment_variables import OTEL_METRIC_EXPORT_INTERVAL
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from forwardscope.cli.otlp_exporter import OtlpExporter
from forwardscope.cli.otlp_metrics import metrics_data
from forwardscope.cli.otlp_provider import make_metrics_resource
from forwardscope.cli.targets import positive_setting
from forwardscope.telemetry import names
from forwardscope.telemetry.delivery import NO_ANSWER, PeriodicPusher
from forwardscope.telemetry.http import root_cause

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["MetricDelivery"]

#: The standard's default of a minute would give most runs one point.
_EVERY_MS: Final = 10_000


class MetricDelivery(PeriodicPusher):
    """Sends a registry's metrics every ten seconds, on request, and at the end.

    All metrics are cumulative, so a later request makes up for a failed one.

    Args:
        exporter: The exporter; called in the pusher's thread.
        registry: Registry whose metrics are sent.
        instance: Value of `service.instance.id`, the same in each run of a suite.

    Raises:
        OutputError: OTEL_METRIC_EXPORT_INTERVAL is not a positive whole number.
    """

    def __init__(
        self, exporter: OtlpExporter[MetricsData], registry: CollectorRegistry, instance: str
    ) -> None:
        self._exporter = exporter
        self._registry = registry
        self._resource = make_metrics_resource(instance)
        self._scope = InstrumentationScope(names.TRACER, version("forwardscope"))
        self._start_ns = time.time_ns()
        super().__init__(self._send, positive_setting(OTEL_METRIC_EXPORT_INTERVAL, _EVERY_MS) / 1e3)

    def close(self, timeout_s: float) -> str | None:
        """Send a last time, and close the connection; return why that failed, or None."""
        failure = super().close(timeout_s)
        reason = self._exporter.abort()
        return reason if reason and failure == NO_ANSWER else failure

    def _send(self) -> str | None:
        """Send the current values; return why the receiver did not accept all, or None."""
        try:
            families = self._registry.collect()
            data = metrics_data(
                families, self._resource, self._scope, self._start_ns, time.time_ns()
            )
        except Exception as error:  # noqa: BLE001 - the run continues, and its report has the reason
            return root_cause(error)
        accepted, failure = self._exporter.send(data)
        return f"{failure}; {accepted} data points accepted" if failure and accepted else failure
