"""Span delivery: exact counts of exported and dropped spans, and a bounded close."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags

from forwardscope.cli.otlp_exporter import OtlpExporter
from forwardscope.cli.otlp_provider import make_provider
from forwardscope.cli.span_delivery import SpanDelivery
from forwardscope.errors import OutputError

pytestmark = pytest.mark.timeout(900)

InThread = Callable[[Callable[[], Any]], "Future[Any]"]
Answer = Callable[[], SpanExportResult]

_TIMEOUT_S = 60.0
_SUCCESS, _FAILURE = SpanExportResult.SUCCESS, SpanExportResult.FAILURE


class Receiver(SpanExporter):
    """Records the names of exported spans.

    Args:
        answer: Returns the result of a batch.
    """

    def __init__(self, answer: Answer = lambda: _SUCCESS) -> None:
        self.names: list[str] = []
        self.batches: list[int] = []
        self.shutdowns = 0
        self._answer = answer

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.batches.append(len(spans))
        result = self._answer()
        self.names += [span.name for span in spans]
        return result

    def shutdown(self) -> None:
        self.shutdowns += 1


class Held:
    """An answer that waits until `release` is set."""

    def __init__(self) -> None:
        self.reached, self.release = threading.Event(), threading.Event()

    def __call__(self) -> SpanExportResult:
        self.reached.set()
        assert self.release.wait(_TIMEOUT_S)
        return _SUCCESS


@pytest.fixture
def held() -> Iterator[Held]:
    """An answer that waits, at most until the end of the test."""
    held = Held()
    yield held
    held.release.set()


@pytest.fixture(autouse=True)
def export_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the shortest delay, and remove the machine's variables."""
    for name in ("MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE", "EXPORT_TIMEOUT"):
        monkeypatch.delenv(f"OTEL_BSP_{name}", raising=False)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")


@pytest.fixture
def export_only_full_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a delay of an hour, so that partial batches are exported at close."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")


def deliver_to(
    exporter: SpanExporter, last_error: Callable[[], str | None] = lambda: None
) -> SpanDelivery:
    """Return a delivery to an SDK exporter."""
    return SpanDelivery(OtlpExporter(exporter, last_error))


def end_spans(delivery: SpanDelivery, *names: str) -> None:
    """Start and end spans."""
    tracer = make_provider(delivery).get_tracer("test")
    for name in names:
        tracer.start_span(name).end()


def test_spans_are_exported_in_order() -> None:
    """After close the receiver has each span once, and spans are counted by kind."""
    receiver = Receiver()
    delivery = deliver_to(receiver)
    names = ["lookup hit", "lookup batch", "forward ft", "lookup miss", "probe lookup hit"] * 300
    end_spans(delivery, *names)
    delivery.close(_TIMEOUT_S)
    delivery.close(_TIMEOUT_S)
    assert receiver.names == names
    kinds = {"lookup": 600, "batch": 300, "forward": 300, "probe": 300}
    assert delivery.outcomes() == {(kind, "exported"): n for kind, n in kinds.items()}
    assert delivery.failure is None
    assert receiver.shutdowns == 1


def refuse() -> SpanExportResult:
    """Answer as a receiver that refuses a batch."""
    return _FAILURE


def fail() -> SpanExportResult:
    """Raise an error that no exporter should raise."""
    raise RuntimeError("gone")


@pytest.mark.usefixtures("export_only_full_batches")
@pytest.mark.parametrize(
    ("answer", "reason"), [(refuse, "HTTP 400: Bad Request"), (fail, "RuntimeError: gone")]
)
def test_a_failed_batch_is_dropped(answer: Answer, reason: str) -> None:
    """Spans of a failed batch are dropped with its reason, and the next batch is exported."""
    answers = iter([answer, lambda: _SUCCESS])
    delivery = deliver_to(Receiver(lambda: next(answers)()), lambda: "HTTP 400: Bad Request")
    end_spans(delivery, *["first"] * 512, *["second"] * 10)
    delivery.close(_TIMEOUT_S)
    assert delivery.outcomes() == {("first", "dropped"): 512, ("second", "exported"): 10}
    assert delivery.failure == reason


def test_a_full_queue_drops_and_never_waits(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans that do not fit are pending until close, and then dropped."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100")
    delivery = deliver_to(Receiver(held))
    end_spans(delivery, "first")
    assert held.reached.wait(_TIMEOUT_S)
    end_spans(delivery, *["span"] * 130)
    assert delivery.outcomes() == {("first", "pending"): 1, ("span", "pending"): 130}
    held.release.set()
    delivery.close(_TIMEOUT_S)
    assert delivery.outcomes() == {
        ("first", "exported"): 1,
        ("span", "exported"): 100,
        ("span", "dropped"): 30,
    }
    assert delivery.failure == "the queue was full"


def test_an_ordinary_run_fits_into_the_queue(held: Held) -> None:
    """Four probes with 2,000 hit spans each lose none while the receiver pauses."""
    delivery = deliver_to(Receiver(held))
    end_spans(delivery, *["lookup hit"] * 4 * 2_000, *["forward ft"] * 400)
    held.release.set()
    delivery.close(_TIMEOUT_S)
    assert delivery.outcomes() == {
        ("lookup", "exported"): 8_000,
        ("forward", "exported"): 400,
    }


@pytest.mark.usefixtures("export_only_full_batches")
def test_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_BSP_MAX_EXPORT_BATCH_SIZE bounds batches, and so does a smaller queue."""
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100")
    receiver = Receiver()
    delivery = deliver_to(receiver)
    end_spans(delivery, *["span"] * 250)
    delivery.close(_TIMEOUT_S)
    assert receiver.batches == [100, 100, 50]
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    receiver = Receiver()
    delivery = deliver_to(receiver)
    end_spans(delivery, *["span"] * 10)
    delivery.close(_TIMEOUT_S)
    assert receiver.batches == [10]


@pytest.mark.parametrize("value", ["many", "0", "-1", "1.5"])
@pytest.mark.parametrize("name", ["MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE", "SCHEDULE_DELAY"])
def test_invalid_variables(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The error names the variable and its value."""
    monkeypatch.setenv(f"OTEL_BSP_{name}", value)
    with pytest.raises(OutputError, match=f"OTEL_BSP_{name} is '{value}'; write a whole number"):
        deliver_to(Receiver())


@pytest.mark.parametrize("late", [lambda: _SUCCESS, refuse, fail])
def test_a_receiver_that_hangs(held: Held, late: Answer) -> None:
    """All spans are dropped at close; the late answer changes nothing, and no batch follows."""
    before = set(threading.enumerate())

    def answer() -> SpanExportResult:
        held()
        return late()

    receiver = Receiver(answer)
    delivery = deliver_to(receiver)
    end_spans(delivery, *["span"] * 600)
    assert held.reached.wait(_TIMEOUT_S)
    delivery.close(0.0)
    expected = {("span", "dropped"): 600}
    assert delivery.outcomes() == expected
    held.release.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(_TIMEOUT_S)
        assert not thread.is_alive()
    assert delivery.outcomes() == expected
    assert delivery.failure == "not delivered in time"
    assert len(receiver.batches) == 1


def test_the_reason_while_the_exporter_retries(held: Held) -> None:
    """If the exporter still retries at close, the reason is that of its last attempt."""
    delivery = deliver_to(Receiver(held), lambda: "Connection refused")
    end_spans(delivery, "span")
    assert held.reached.wait(_TIMEOUT_S)
    delivery.close(0.0)
    assert delivery.failure == "Connection refused"


@pytest.mark.parametrize("place", ["export", "shutdown", "last_error"])
def test_close_is_bounded_wherever_the_exporter_hangs(
    held: Held, in_thread: InThread, place: str
) -> None:
    """`close` returns in time with final counts."""
    receiver = Receiver(held if place != "shutdown" else lambda: _SUCCESS)

    def hang() -> None:
        held.release.wait(_TIMEOUT_S)

    if place == "shutdown":
        receiver.shutdown = hang  # type: ignore[method-assign]
    delivery = deliver_to(receiver, hang if place == "last_error" else lambda: None)
    end_spans(delivery, "span")
    in_thread(lambda: delivery.close(1.0)).result(_TIMEOUT_S / 2)
    outcome = "exported" if place == "shutdown" else "dropped"
    assert delivery.outcomes() == {("span", outcome): 1}


def test_an_exporter_whose_shutdown_raises() -> None:
    """`close` does not raise, and no span is lost."""
    receiver = Receiver()
    receiver.shutdown = lambda: 1 / 0  # type: ignore[method-assign, assignment]
    delivery = deliver_to(receiver)
    end_spans(delivery, "span")
    delivery.close(_TIMEOUT_S)
    assert delivery.outcomes() == {("span", "exported"): 1}


@pytest.mark.usefixtures("export_only_full_batches")
def test_close_if_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is raised, and pending spans are dropped."""
    delivery = deliver_to(Receiver())
    end_spans(delivery, "span")

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as refusing:
        refusing.setattr(threading.Thread, "start", refuse)
        delivery.close(_TIMEOUT_S)
    assert delivery.outcomes() == {("span", "dropped"): 1}


@pytest.mark.usefixtures("export_only_full_batches")
def test_an_interrupted_close(held: Held) -> None:
    """An interrupt ends the wait, and no span is pending afterwards."""
    interrupted = threading.Event()

    def interrupt(*_: object) -> None:
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    def answer() -> SpanExportResult:
        main = threading.main_thread().ident or 0
        while not interrupted.wait(0.05):  # a signal just before a wait does not end it
            signal.pthread_kill(main, signal.SIGUSR1)
        return held()

    delivery = deliver_to(Receiver(answer))
    end_spans(delivery, "span")
    handler = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            delivery.close(_TIMEOUT_S)
    finally:
        signal.signal(signal.SIGUSR1, handler)
    assert delivery.outcomes() == {("span", "dropped"): 1}
    delivery.close(_TIMEOUT_S)
    assert delivery.outcomes() == {("span", "dropped"): 1}


def test_a_span_that_ends_after_close_is_dropped() -> None:
    """The span is counted and not exported."""
    receiver = Receiver()
    delivery = deliver_to(receiver)
    delivery.close(_TIMEOUT_S)
    end_spans(delivery, "late")
    assert delivery.outcomes() == {("late", "dropped"): 1}
    assert receiver.names == []


class SlowName(str):
    """A name whose hash is Python code, so that threads can switch inside each count."""

    __slots__ = ()

    def __hash__(self) -> int:
        return super().__hash__()


@pytest.fixture
def many_switches() -> Iterator[None]:
    """Switch threads as often as possible."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("many_switches")
def test_counts_are_exact_under_threads(in_thread: InThread) -> None:
    """Eight threads end spans while every third batch fails."""
    results: list[tuple[int, SpanExportResult]] = []
    start = threading.Barrier(8)

    class Unreliable(Receiver):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result = _SUCCESS if len(results) % 3 else _FAILURE
            results.append((len(spans), result))
            return result

    delivery = deliver_to(Unreliable())

    def end() -> None:
        start.wait(_TIMEOUT_S)
        end_spans(delivery, *[SlowName("span")] * 400)

    for future in [in_thread(end) for _ in range(8)]:
        future.result(_TIMEOUT_S)
    delivery.close(_TIMEOUT_S)
    counts = delivery.outcomes()
    assert counts.total() == 8 * 400
    assert counts["span", "exported"] == sum(n for n, result in results if result is _SUCCESS)
    assert set(counts) == {("span", "exported"), ("span", "dropped")}


@pytest.mark.usefixtures("many_switches")
def test_counts_are_consistent_at_any_moment(held: Held) -> None:
    """A reader never sees a span twice or not at all."""
    delivery = deliver_to(Receiver(held))
    end_spans(delivery, *[SlowName("span")] * 5_000)
    held.release.set()
    while (counts := delivery.outcomes())["span", "pending"]:
        assert counts.total() == 5_000
    assert counts == {("span", "exported"): 5_000}
    delivery.close(_TIMEOUT_S)


@pytest.mark.usefixtures("many_switches")
def test_spans_that_end_during_close_are_counted(in_thread: InThread) -> None:
    """Each span is exported or dropped, and none is pending."""
    context = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    span = ReadableSpan(SlowName("span"), context=context)
    for _ in range(20):
        delivery, start = deliver_to(Receiver()), threading.Barrier(5)

        def end(delivery: SpanDelivery = delivery, start: threading.Barrier = start) -> None:
            start.wait(_TIMEOUT_S)
            for _ in range(300):
                delivery.on_end(span)

        ended = [in_thread(end) for _ in range(4)]
        start.wait(_TIMEOUT_S)
        delivery.close(0.0)
        for future in ended:
            future.result(_TIMEOUT_S)
        counts = delivery.outcomes()
        assert counts.total() == 4 * 300
        assert {outcome for _, outcome in counts} <= {"exported", "dropped"}


_FORKING = """
import os, signal, sys, threading, warnings
sys.path.insert(0, sys.argv[1])
warnings.simplefilter("ignore")  # Python warns of a fork beside threads
from test_span_delivery import Receiver, SlowName, deliver_to, make_provider

delivery = deliver_to(Receiver())
provider = make_provider(delivery)

def end():
    tracer = provider.get_tracer("test")
    while True:
        tracer.start_span(SlowName("span")).end()

span = provider.get_tracer("test").start_span("child")
for _ in range(4):
    threading.Thread(target=end, daemon=True).start()
sys.setswitchinterval(1e-5)
for _ in range(40):
    child = os.fork()
    if child == 0:
        signal.alarm(5)  # ends a child that hangs
        span.end()
        os._exit(delivery.outcomes().total() != 1)
    if os.waitpid(child, 0)[1] != 0:
        os._exit(1)
os._exit(0)
"""


def test_a_forked_child_counts_its_own_spans() -> None:
    """A lock that a parent's thread holds at the fork does not block the child."""
    command = [sys.executable, "-c", _FORKING, __file__.rpartition("/")[0]]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
