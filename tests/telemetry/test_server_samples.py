"""A scrape has the requests to the server of each backend that has one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from forwardscope import BackendInstrumentation
from forwardscope.core.server_requests import Exchange
from forwardscope.telemetry import register, server_names

_ONE = Exchange("completions", 0.5, 3, 2, 200)


def _samples(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """Return the samples of requests without buckets, by name and values of the labels."""
    stems = tuple(one.name.removesuffix("_total") for one in server_names.SERVER_METRICS)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if family.name in stems and not sample.name.endswith("_bucket")
    }


def test_backends_have_their_own_requests(registry: CollectorRegistry) -> None:
    """Two backends of one server are two series, and one without a server has none."""
    for name, requests in (("one", 1), ("two", 2), ("local", 0)):
        backend = BackendInstrumentation(name=name)
        if requests:
            backend.name_server("http://server:8000", "server", 8000)
        for _ in range(requests):
            backend.report_request(_ONE)
        register(backend, registry)
    duration, server = server_names.REQUEST_DURATION.name, "http://server:8000"
    assert _samples(registry) == {
        (name, backend, server, "completions", *more): n * each
        for backend, n in (("one", 1), ("two", 2))
        for name, more, each in (
            (f"{duration}_count", (), 1),
            (f"{duration}_sum", (), 0.5),
            (server_names.REQUESTS.name, ("2xx",), 1),
            (server_names.REQUEST_RETRIES.name, (), 2),
            (server_names.REQUEST_THROTTLED.name, (), 2),
        )
    }


def test_another_server_has_counts_of_its_own(registry: CollectorRegistry) -> None:
    """What was asked before there was a server counts nowhere."""
    backend = BackendInstrumentation()
    register(backend, registry)
    backend.report_request(_ONE)
    assert not _samples(registry)
    for port in (8000, 8001):
        backend.name_server(f"http://server:{port}", "server", port)
        assert set(_samples(registry).values()) == {0}
        assert {key[2] for key in _samples(registry)} == {f"http://server:{port}"}
        backend.report_request(_ONE)
