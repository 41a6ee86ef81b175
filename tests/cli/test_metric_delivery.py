"""Metrics on their way to OTLP receivers in this process: what arrives, failures, and the end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from socket import create_server

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client import Metric as Family
from prometheus_client.registry import Collector

from forwardscope.cli.metric_delivery import MetricDelivery
from forwardscope.cli.otlp import make_exporter
from forwardscope.cli.targets import OtlpTarget
from forwardscope.errors import OutputError

from .metrics_receiver import Receiver, receive_grpc, receive_http

pytestmark = pytest.mark.timeout(900)

_PATIENCE_S = 60.0
_INSTANCE = "nightly on some-model"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a timeout of one second, use no proxy, and leave the machine's resource out."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("no_proxy", "*")
    for name in ("OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME", "OTEL_METRIC_EXPORT_INTERVAL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def gauge() -> Gauge:
    """A gauge at 7, on no registry."""
    made = Gauge("seen", "One number.", registry=None)
    made.set(7)
    return made


@pytest.fixture
def registry(gauge: Gauge) -> CollectorRegistry:
    """A registry with the gauge."""
    made = CollectorRegistry()
    made.register(gauge)
    return made


def deliver_to(url: str, registry: CollectorRegistry) -> MetricDelivery:
    """Return a delivery to a receiver."""
    protocol = "grpc" if url.startswith("grpc:") else "http/protobuf"
    target = OtlpTarget(url, protocol, explicit=True, signal="metrics")
    return MetricDelivery(make_exporter(target), registry, _INSTANCE)


@pytest.mark.parametrize("receive", [receive_http, receive_grpc])
def test_metrics_arrive(
    receive: Callable[[], AbstractContextManager[Receiver]],
    registry: CollectorRegistry,
    gauge: Gauge,
) -> None:
    """Each request has the values of its time, and the last one those of the end."""
    with receive() as receiver:
        delivery = deliver_to(receiver.url, registry)
        delivery.push()
        assert receiver.received.acquire(timeout=_PATIENCE_S)
        gauge.set(8)
        assert delivery.close(_PATIENCE_S) is None
    assert [receiver.total("seen", request) for request in (0, 1)] == [7, 8]
    assert delivery.pushes == 2


def test_the_resource_is_the_same_in_each_process(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the service, and as instance the suite and model; variables take precedence."""
    with receive_http() as receiver:
        assert deliver_to(receiver.url, registry).close(_PATIENCE_S) is None
        found = receiver.resource()
        assert found.pop("service.version")
        assert found == {"service.name": "forwardscope", "service.instance.id": _INSTANCE}
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=machine-7,team=a")
        assert deliver_to(receiver.url, registry).close(_PATIENCE_S) is None
    assert receiver.resource()["service.instance.id"] == "machine-7"
    assert receiver.resource()["team"] == "a"


def test_path_and_headers(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of metrics is appended, and the headers for metrics are sent."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "authorization=Bearer%20t0ken")
    with receive_http() as receiver:
        for path in ("/api/v1/otlp", "/api/v1/otlp/v1/metrics/"):
            assert deliver_to(receiver.url + path, registry).close(_PATIENCE_S) is None
    assert receiver.paths == [("/api/v1/otlp/v1/metrics", "Bearer t0ken")] * 2


def test_the_interval(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics are sent without a request once in the interval of the standard variable."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "10")
    with receive_http() as receiver:
        delivery = deliver_to(receiver.url, registry)
        for _ in range(3):
            assert receiver.received.acquire(timeout=_PATIENCE_S)
        assert delivery.close(_PATIENCE_S) is None
    assert delivery.pushes >= 3


def test_invalid_interval(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "often")
    with pytest.raises(OutputError, match=r"^OTEL_METRIC_EXPORT_INTERVAL is 'often'"):
        deliver_to("http://127.0.0.1:9", registry)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_receiver_that_is_down(registry: CollectorRegistry, scheme: str) -> None:
    """The reason is the system's."""
    delivery = deliver_to(f"{scheme}://127.0.0.1:9", registry)
    assert delivery.close(_PATIENCE_S) == "Connection refused"
    assert delivery.pushes == 0


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_receiver_that_hangs(
    registry: CollectorRegistry, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The close ends although the request does not, and says that there was no answer."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "100")
    with create_server(("127.0.0.1", 0)) as server:
        delivery = deliver_to(f"{scheme}://127.0.0.1:{server.getsockname()[1]}", registry)
        assert delivery.close(0.2) == "no answer in time"


def test_a_receiver_that_is_down_while_the_last_request_is_retried(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A close that does not wait for the retries has the reason of the last attempt."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "100")
    delivery = deliver_to("http://127.0.0.1:9", registry)
    assert delivery.close(0.5) == "Connection refused"


def test_a_redirect(registry: CollectorRegistry) -> None:
    """The metrics are not delivered, and the other server receives no request."""
    with receive_http() as other, receive_http() as receiver:
        receiver.status, receiver.location = 307, f"{other.url}/v1/metrics?s3cr3t"
        reason = deliver_to(receiver.url, registry).close(_PATIENCE_S)
        assert other.requests == []
    assert reason == f"HTTP 307: redirects to {other.url}/v1/metrics, which is not followed"


@pytest.mark.parametrize(
    ("rejected", "reason"),
    [
        (1, "rejected by the receiver: quota exceeded; 1 data points accepted"),
        (2, "rejected by the receiver: quota exceeded"),
    ],
)
def test_partial_success(registry: CollectorRegistry, rejected: int, reason: str) -> None:
    """Data points that the receiver rejects are a failure with its message."""
    Gauge("more", "Another number.", registry=registry).set(1)
    with receive_http() as receiver:
        receiver.answer.partial_success.rejected_data_points = rejected
        receiver.answer.partial_success.error_message = "quota exceeded"
        delivery = deliver_to(receiver.url, registry)
        assert delivery.close(_PATIENCE_S) == reason
    assert delivery.pushes == 0


def test_a_later_request_makes_up_for_a_failed_one(
    registry: CollectorRegistry, gauge: Gauge
) -> None:
    """Only the last request counts."""
    with receive_http() as receiver:
        receiver.status = 400
        delivery = deliver_to(receiver.url, registry)
        delivery.push()
        assert receiver.received.acquire(timeout=_PATIENCE_S)
        receiver.status = 200
        assert delivery.close(_PATIENCE_S) is None
    assert delivery.pushes == 1


def test_a_receiver_that_quotes_secrets(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason has stars in place of tokens of the URL and the headers."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "authorization=Bearer%20t0ken")
    with receive_http() as receiver:
        receiver.answer.partial_success.rejected_data_points = 1
        receiver.answer.partial_success.error_message = "t0ken qu3ry"
        reason = deliver_to(f"{receiver.url}?key=qu3ry", registry).close(_PATIENCE_S)
    assert reason == "rejected by the receiver: *** ***"


def test_a_collector_that_fails() -> None:
    """Its error is the reason, and the thread goes on."""

    class Broken(Collector):
        broken = False

        def collect(self) -> list[Family]:
            if self.broken:
                raise ValueError("no values")
            return []

    registry, broken = CollectorRegistry(), Broken()
    registry.register(broken)
    broken.broken = True
    assert deliver_to("http://127.0.0.1:9", registry).close(_PATIENCE_S) == "ValueError: no values"
