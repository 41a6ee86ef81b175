"""The pipeline that exports spans: each of them is exported or counted as dropped."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from forwardscope.cli import otlp
from forwardscope.cli.otlp import SpanPipeline, make_exporter, make_provider
from forwardscope.cli.targets import OtlpTarget

_PATIENCE_S = 60.0


class Receiver(SpanExporter):
    """Keeps what is exported; `answer` decides what comes of each batch."""

    def __init__(self, answer: Callable[[], SpanExportResult]) -> None:
        self.names: list[str] = []
        self.largest = 0
        self.shut_down = 0
        self._answer = answer

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.largest = max(self.largest, len(spans))
        result = self._answer()
        self.names += [span.name for span in spans]
        return result

    def shutdown(self) -> None:
        self.shut_down += 1


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Iterator[Callable[[Receiver], SpanPipeline]]:
    """Make pipelines that are closed at the end."""
    made: list[SpanPipeline] = []

    def pipeline(receiver: Receiver) -> SpanPipeline:
        made.append(SpanPipeline(receiver))
        return made[-1]

    yield pipeline
    for one in made:
        one.close(0.0)


def end_spans(pipeline: SpanPipeline, *names: str) -> None:
    """Start and end spans through a provider of the program's."""
    tracer = make_provider(pipeline).get_tracer("test")
    for name in names:
        tracer.start_span(name).end()


def test_all_are_exported_in_order(make: Callable[[Receiver], SpanPipeline]) -> None:
    """After close each span is with the receiver once, and counted by its name."""
    receiver = Receiver(lambda: SpanExportResult.SUCCESS)
    pipeline = make(receiver)
    asked = [f"span {number % 3}" for number in range(1500)]
    end_spans(pipeline, *asked)
    pipeline.close(_PATIENCE_S)
    assert receiver.names == asked
    assert receiver.largest <= 512
    assert pipeline.outcomes() == Counter({(name, "exported"): 500 for name in set(asked)})
    assert receiver.shut_down == 1


def test_refused_batches_are_dropped(make: Callable[[Receiver], SpanPipeline]) -> None:
    """A batch that the receiver does not take is counted, and the next one is tried."""
    answers = iter([SpanExportResult.FAILURE, SpanExportResult.SUCCESS])
    pipeline = make(Receiver(lambda: next(answers)))
    end_spans(pipeline, *["first"] * 512, *["second"] * 10)
    pipeline.close(_PATIENCE_S)
    assert pipeline.outcomes() == {("first", "dropped"): 512, ("second", "exported"): 10}


def test_an_exporter_that_raises_loses_its_batch_alone(
    make: Callable[[Receiver], SpanPipeline],
) -> None:
    """The error is counted and kept for the report; the thread goes on."""
    answers = iter([RuntimeError("gone"), None])

    def answer() -> SpanExportResult:
        error = next(answers)
        if error is not None:
            raise error
        return SpanExportResult.SUCCESS

    pipeline = make(Receiver(answer))
    end_spans(pipeline, *["first"] * 512, "second")
    pipeline.close(_PATIENCE_S)
    assert pipeline.outcomes() == {("first", "dropped"): 512, ("second", "exported"): 1}
    assert pipeline.failure == "RuntimeError: gone"


def test_a_receiver_that_hangs_costs_no_more_than_the_time_given(
    make: Callable[[Receiver], SpanPipeline],
) -> None:
    """What is under way or queued is dropped; an answer that comes later changes nothing."""
    asked, go_on = threading.Event(), threading.Event()

    def hang() -> SpanExportResult:
        asked.set()
        assert go_on.wait(_PATIENCE_S)
        return SpanExportResult.SUCCESS

    pipeline = make(Receiver(hang))
    end_spans(pipeline, *["span"] * 600)
    assert asked.wait(_PATIENCE_S)
    pipeline.close(0.0)
    expected = {("span", "dropped"): 600}
    assert pipeline.outcomes() == expected
    go_on.set()
    pipeline._thread.join(_PATIENCE_S)
    assert pipeline.outcomes() == expected


def test_a_full_queue_drops_and_never_waits(
    make: Callable[[Receiver], SpanPipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nobody taking spans, the queue holds its bound and the rest is counted."""
    monkeypatch.setattr(otlp, "_CAPACITY", 100)
    asked, go_on = threading.Event(), threading.Event()

    def hang() -> SpanExportResult:
        asked.set()
        assert go_on.wait(_PATIENCE_S)
        return SpanExportResult.SUCCESS

    pipeline = make(Receiver(hang))
    end_spans(pipeline, "first")
    assert asked.wait(_PATIENCE_S)
    end_spans(pipeline, *["span"] * 130)
    assert pipeline.outcomes()["span", "dropped"] == 30
    assert pipeline.outcomes()["span", "pending"] == 100
    go_on.set()
    pipeline.close(_PATIENCE_S)
    assert pipeline.outcomes() == {
        ("first", "exported"): 1,
        ("span", "exported"): 100,
        ("span", "dropped"): 30,
    }


def test_a_span_that_ends_after_close_is_dropped(
    make: Callable[[Receiver], SpanPipeline],
) -> None:
    """Nobody will export it."""
    pipeline = make(Receiver(lambda: SpanExportResult.SUCCESS))
    pipeline.close(_PATIENCE_S)
    end_spans(pipeline, "late")
    assert pipeline.outcomes() == {("late", "dropped"): 1}
    pipeline.wait_for_room()


def test_what_the_exporter_logs_is_kept_off_the_terminal(
    make: Callable[[Receiver], SpanPipeline], capsys: pytest.CaptureFixture[str]
) -> None:
    """A known reason is cut out of the sentence; logging is as before afterwards."""
    logger = logging.getLogger("opentelemetry.exporter")

    def refuse() -> SpanExportResult:
        logger.error("Failed: NewConnection('[Errno 111] Connection refused') at http://x")
        return SpanExportResult.FAILURE

    pipeline = make(Receiver(refuse))
    end_spans(pipeline, "span")
    pipeline.close(_PATIENCE_S)
    pipeline._thread.join(_PATIENCE_S)
    assert pipeline.failure == "Connection refused"
    assert capsys.readouterr() == ("", "")
    assert logging.getLogger("opentelemetry").propagate is True
    assert logging.getLogger("opentelemetry").handlers == []


def test_pipelines_that_overlap_leave_logging_as_it_was(
    make: Callable[[Receiver], SpanPipeline],
) -> None:
    """The one that began first may end first: what stood before both stands after both."""
    first, second = (make(Receiver(lambda: SpanExportResult.SUCCESS)) for _ in range(2))
    for pipeline in (first, second):
        assert logging.getLogger("opentelemetry").propagate is False
        pipeline.close(_PATIENCE_S)
        pipeline._thread.join(_PATIENCE_S)
    assert logging.getLogger("opentelemetry").propagate is True


@pytest.mark.parametrize(
    ("environ", "name"),
    [({}, "forwardscope"), ({"OTEL_SERVICE_NAME": "nightly"}, "nightly")],
)
def test_service_name_is_ours_unless_the_variable_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], name: str
) -> None:
    """Standard variables go before what the program is called."""
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    pipeline = SpanPipeline(Receiver(lambda: SpanExportResult.SUCCESS))
    provider = make_provider(pipeline)
    pipeline.close(0.0)
    assert isinstance(provider, TracerProvider)
    assert provider.resource.attributes["service.name"] == name


@pytest.mark.parametrize(
    ("url", "protocol", "endpoint"),
    [
        ("http://host:4318", "http/protobuf", "http://host:4318/v1/traces"),
        ("http://host:4318/", "http/protobuf", "http://host:4318/v1/traces"),
        ("http://host/v1/traces", "http/protobuf", "http://host/v1/traces"),
        ("grpc://host:4317", "grpc", "host:4317"),
        ("http://host:4317", "grpc", "host:4317"),
    ],
)
def test_exporter_speaks_to_the_url(url: str, protocol: str, endpoint: str) -> None:
    """HTTP gets the path of the signal, gRPC the bare address."""
    exporter = make_exporter(OtlpTarget(url, protocol, asked=True))
    assert vars(exporter)["_endpoint"] == endpoint
    exporter.shutdown()
