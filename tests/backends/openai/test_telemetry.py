"""What spans and metrics say of a model that a server holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import StringIO

import pytest
from rich.console import Console

from forwardscope import BackendInstrumentation
from forwardscope.backends.openai import ServedBackend, ServedSource, load_backend
from forwardscope.errors import ServerError
from forwardscope.probes import DeltaKL
from forwardscope.suite import SuiteSpec, run_suite
from forwardscope.suite.report import print_report
from forwardscope.suite.spec import Defaults, ServedModelSpec
from forwardscope.telemetry import server_names
from forwardscope.telemetry.names import Metric
from forwardscope.testing import InMemoryTelemetry, SeenSpan

from .vllm_double import Fault, VllmDouble

PROMPTS = ["The capital of France is", "To bake bread you need", "Hello"]
K = 5
#: Asks to come back at once.
_AT_ONCE = (("Retry-After", "0"),)
_THROTTLED = Fault(429, headers=_AT_ONCE, operation="completions")
Open = Callable[..., ServedBackend]


@pytest.fixture
def telemetry() -> InMemoryTelemetry:
    """Return spans and metrics in memory."""
    return InMemoryTelemetry()


@pytest.fixture
def opened(server: VllmDouble, telemetry: InMemoryTelemetry) -> Iterator[Open]:
    """Return a function that opens a model of the double, with telemetry."""
    with ExitStack() as closing:

        def load(instrumentation: BackendInstrumentation | None = None) -> ServedBackend:
            source = ServedSource(server.url, "base", "tiny")
            inst = instrumentation or telemetry.instrumentation()
            backend = load_backend(source, instrumentation=inst)
            closing.callback(backend.close)
            return backend

        yield load


def _forward(telemetry: InMemoryTelemetry) -> list[SeenSpan]:
    return [one for one in telemetry.spans() if one.name.startswith("forward ")]


def test_forward_calls_are_client_spans(
    opened: Open, server: VllmDouble, telemetry: InMemoryTelemetry
) -> None:
    """They name the server and the model; all other spans are internal."""
    backend = opened()
    with backend.as_base() as view:
        view.next_token_dist_batch(PROMPTS, top_k=K)
    with backend.as_finetuned() as view:
        view.next_token_dist(PROMPTS[0], top_k=K)
    base, tuned = _forward(telemetry)
    assert base.attributes == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "base",
        "gen_ai.usage.input_tokens": 11,
        "server.address": "127.0.0.1",
        "server.port": int(server.url.removesuffix("/v1").rpartition(":")[2]),
        "forwardscope.op": "next_token_dist",
        "forwardscope.view": "base",
        "forwardscope.batch.size": 3,
    }
    assert tuned.attributes["gen_ai.request.model"] == "tiny on base"
    assert {one.kind for one in (base, tuned)} == {"client"}
    assert {one.kind for one in telemetry.spans() if one not in (base, tuned)} == {"internal"}


def test_spans_of_the_server_join_the_trace(
    opened: Open, server: VllmDouble, telemetry: InMemoryTelemetry
) -> None:
    """Each request of a forward call has the trace and the call's span as its parent."""
    backend, tracer = opened(), telemetry.tracer_provider.get_tracer("a test")
    server.parents.clear()
    with tracer.start_as_current_span("mine") as mine, backend.as_base() as view:
        view.next_token_dist_batch(PROMPTS, top_k=K)
    own = mine.get_span_context()
    *_, parent = server.parents
    assert parent is not None
    _, trace, span, _ = parent.split("-")
    assert (int(trace, 16), int(span, 16) == own.span_id) == (own.trace_id, False)


def test_a_failed_call_names_its_server(
    opened: Open, server: VllmDouble, telemetry: InMemoryTelemetry
) -> None:
    """Its span has status Error and the class of the exception."""
    backend = opened()
    server.faults.append(Fault(501, operation="completions"))
    with backend.as_base() as view, pytest.raises(ServerError):
        view.next_token_dist(PROMPTS[0], top_k=K)
    [failed] = _forward(telemetry)
    assert (failed.kind, failed.status) == ("client", "error")
    assert failed.attributes["error.type"] == "ServerError"
    assert failed.attributes["server.address"] == "127.0.0.1"


def test_path_of_the_url_is_in_no_telemetry(
    opened: Open, server: VllmDouble, telemetry: InMemoryTelemetry
) -> None:
    """It may be a secret."""
    server.url = server.url.replace("/v1", "/some-secret/v1")
    with opened().as_base() as view:
        view.next_token_dist(PROMPTS[0], top_k=K)
    shown = [str(one) for one in (*telemetry.spans(), *telemetry.metrics())]
    assert any("127.0.0.1" in one for one in shown)
    assert not [one for one in shown if "secret" in one]


def _of_server(telemetry: InMemoryTelemetry) -> Callable[..., float | None]:
    """Return a function that reads a sample of the only server."""
    servers = {
        sample.labels["server"]
        for family in telemetry.registry.collect()
        for sample in family.samples
        if "server" in sample.labels
    }
    [server] = servers

    def read(metric: Metric, operation: str = "completions", part: str = "", **more: str) -> float:
        labels = {"backend": "default", "server": server, "operation": operation, **more}
        found = telemetry.registry.get_sample_value(metric.name + part, labels)
        return 0.0 if found is None else found

    return read


def test_requests_are_counted(
    opened: Open, server: VllmDouble, telemetry: InMemoryTelemetry
) -> None:
    """Each request of a server counts once, with its retries and throttled answers."""
    backend = opened()
    read = _of_server(telemetry)
    refused, before = (read(server_names.REQUESTS, outcome=one) for one in ("4xx", "2xx"))
    assert (refused, before) == (2, 0)
    server.faults += [_THROTTLED, _THROTTLED]
    with backend.as_base() as view:
        view.next_token_dist_batch(PROMPTS, top_k=K)
        view.next_token_dist_batch(PROMPTS, top_k=K)
    assert read(server_names.REQUESTS, outcome="2xx") == 1
    assert read(server_names.REQUESTS, outcome="4xx") == refused
    assert read(server_names.REQUEST_RETRIES) == read(server_names.REQUEST_THROTTLED) == 2
    assert read(server_names.REQUEST_DURATION, part="_count") == refused + 1
    operations = [operation for operation, _ in server.requests]
    for operation in set(operations) - {"completions"}:
        requests = read(server_names.REQUEST_DURATION, operation, "_count")
        assert requests == operations.count(operation)
        assert read(server_names.REQUEST_RETRIES, operation) == 0


def test_requests_without_a_usable_answer(
    opened: Open, server: VllmDouble, telemetry: InMemoryTelemetry
) -> None:
    """Their outcome is the class of the status, or that the answer was none."""
    backend = opened()
    server.faults += [
        Fault(501, operation="completions"),
        Fault(200, b"{}", headers=(("Content-Encoding", "gzip"),), operation="completions"),
    ]
    with backend.as_base() as view:
        for _ in range(2):
            with pytest.raises(ServerError):
                view.next_token_dist(PROMPTS[0], top_k=K)
    read = _of_server(telemetry)
    assert read(server_names.REQUESTS, outcome="5xx") == 1
    assert read(server_names.REQUESTS, outcome="unusable") == 1


def test_a_request_is_an_exemplar(opened: Open, telemetry: InMemoryTelemetry) -> None:
    """A bucket of the durations leads to the trace with the forward call."""
    with opened().as_base() as view:
        view.next_token_dist(PROMPTS[0], top_k=K)
    buckets = [
        sample
        for family in telemetry.registry.collect()
        for sample in family.samples
        if sample.name == f"{server_names.REQUEST_DURATION.name}_bucket" and sample.exemplar
    ]
    assert {one.labels["operation"] for one in buckets} == {"tokenize", "completions"}


def test_a_run_has_its_own_requests(
    opened: Open, server: VllmDouble, telemetry: InMemoryTelemetry
) -> None:
    """Result, report and counters agree with what the server was asked in the run."""
    backend = opened()
    backend.identity()  # asks for what it is made of once
    before = len(server.requests)
    server.faults += [_THROTTLED, Fault(503, headers=_AT_ONCE, operation="completions")]
    result = run_suite(
        SuiteSpec(
            version=1,
            name="nightly",
            model=ServedModelSpec(server=server.url, name="base", adapter="tiny"),
            defaults=Defaults(top_k=K),
            probes=[DeltaKL(name="change", prompts=PROMPTS[:2])],
        ),
        backend,
    )
    used = result.server
    assert used is not None
    assert (used.address, used.retries, used.throttled, used.failed) == ("127.0.0.1", 2, 1, 0)
    assert used.requests + used.retries == len(server.requests) - before
    read = _of_server(telemetry)
    completions = len(_forward(telemetry))
    assert read(server_names.REQUESTS, outcome="2xx") == completions
    file = StringIO()
    print_report(result, Console(file=file, width=100))
    line = f"requests to the server: {used.requests}, retried 2, throttled 1"
    assert line in file.getvalue().splitlines()


def test_counts_go_on_with_the_next_model(opened: Open, telemetry: InMemoryTelemetry) -> None:
    """Another model of the same server adds to them, as counters must not fall."""
    inst = telemetry.instrumentation()
    opened(inst)
    read = _of_server(telemetry)
    first = read(server_names.REQUESTS, "models", outcome="2xx")
    opened(inst)
    assert read(server_names.REQUESTS, "models", outcome="2xx") == 2 * first == 2
