"""The metrics of requests to a model server; part of `names`."""

from __future__ import annotations

from typing import Final

from forwardscope.telemetry.definitions import Metric

__all__ = [
    "REQUESTS",
    "REQUEST_DURATION",
    "REQUEST_RETRIES",
    "REQUEST_THROTTLED",
    "SERVER_METRICS",
]

_REQUEST = ("backend", "server", "operation")

REQUEST_DURATION: Final = Metric(
    "forwardscope_server_request_duration_seconds",
    "histogram",
    "seconds",
    "Duration of a request to the model server, from its first attempt to its last answer, waits "
    "before retries included; by operation, the last part of the endpoint's path.",
    _REQUEST,
    "histogram_quantile(0.9, sum by (le, operation) "
    "(rate(forwardscope_server_request_duration_seconds_bucket[5m])))",
)
REQUESTS: Final = Metric(
    "forwardscope_server_requests_total",
    "counter",
    "requests",
    "Requests to the model server by outcome: class of the last status (2xx, 3xx, 4xx or 5xx), "
    "unusable (an answer that is too long, compressed or too slow, or another status) or none (no "
    "whole answer). What a server allows is found with requests that it refuses.",
    (*_REQUEST, "outcome"),
    'sum by (outcome) (rate(forwardscope_server_requests_total{operation="completions"}[5m]))',
)
REQUEST_RETRIES: Final = Metric(
    "forwardscope_server_retries_total",
    "counter",
    "retries",
    "Attempts to send a request to the model server again, because it was busy, failed or closed "
    "the connection.",
    _REQUEST,
    "sum by (server) (rate(forwardscope_server_retries_total[5m])) "
    "/ (sum by (server) (rate(forwardscope_server_requests_total[5m])) > 0)",
)
REQUEST_THROTTLED: Final = Metric(
    "forwardscope_server_throttled_total",
    "counter",
    "answers",
    "Answers of the model server that refuse one request too many (429).",
    _REQUEST,
    "increase(forwardscope_server_throttled_total[1h]) > 0",
)

SERVER_METRICS: Final = (REQUEST_DURATION, REQUESTS, REQUEST_RETRIES, REQUEST_THROTTLED)
