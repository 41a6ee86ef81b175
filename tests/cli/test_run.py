"""`forwardscope run`: exit status, output files and printed lines."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from forwardscope import BackendInstrumentation, TraceReader
from forwardscope.cli.app import app
from forwardscope.suite import SuiteResult, SuiteSpec
from forwardscope.testing import ScriptedBackend, ScriptedView, pseudo_random_logits

Invoke = Callable[..., Result]
Loaded = list[ScriptedBackend]

#: Smallest size of a pipe; a result is longer.
_PIPE_BYTES = 4096


def replace(suite: Path, old: str, new: str) -> None:
    """Replace the first occurrence of a text in a suite file."""
    text = suite.read_text()
    assert old in text
    suite.write_text(text.replace(old, new, 1))


def test_a_run_that_passes_exits_with_0(invoke: Invoke, suite_file: Path, loaded: Loaded) -> None:
    """The report is printed on stdout, nothing on stderr, and the model is closed."""
    ran = invoke("run", suite_file)
    assert (ran.exit_code, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert "cache: 2 of 10 lookups answered without a forward pass (20 %)" in lines
    assert lines[-1] == "reconciled: 10 lookups; no trace or spans"
    assert [backend.closed for backend in loaded] == [True]


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [("0.000001", "1000.0", "fail"), ("[b, c]", "[raise]", "error")],
)
def test_a_run_that_does_not_pass_exits_with_1(
    invoke: Invoke, suite_file: Path, loaded: Loaded, old: str, new: str, verdict: str
) -> None:
    """A probe fails or has an error; the report is printed."""
    replace(suite_file, old, new)
    ran = invoke("run", suite_file)
    assert (ran.exit_code, ran.stderr) == (1, "")
    assert f" {verdict} " in ran.stdout
    assert "Traceback" not in ran.output


def test_trace_and_result_agree(invoke: Invoke, suite_file: Path, loaded: Loaded) -> None:
    """Both have the same lookups, hits, misses and run id."""
    trace, result_file = suite_file.with_name("t.jsonl"), suite_file.with_name("r.json")
    ran = invoke("run", suite_file, "--trace", trace, "--json", result_file)
    result = SuiteResult.model_validate_json(result_file.read_text())
    events = list(TraceReader(trace))
    stats = result.backend_stats
    assert ran.exit_code == 0
    assert len(events) == result.reconciliation.lookups == 10
    assert sum(event.hit for event in events) == stats["cache_hits"] == 2
    assert sum(not event.hit for event in events) == stats["cache_misses"] == 8
    assert {event.run_id for event in events} == {result.run_id}
    keys = ["ts", "probe", "view_id", "prompt_hash", "top_k", "op", "wall_ms", "hit"]
    assert all(list(json.loads(line))[:8] == keys for line in trace.read_text().splitlines())
    assert ran.stdout.splitlines()[-1] == "reconciled: 10 lookups = 10 trace records"


def test_a_second_run_appends_to_the_trace(
    invoke: Invoke, suite_file: Path, loaded: Loaded
) -> None:
    """Each run reconciles with its own records only."""
    trace = suite_file.with_name("t.jsonl")
    runs = [invoke("run", suite_file, "--trace", trace) for _ in range(2)]
    assert [ran.exit_code for ran in runs] == [0, 0]
    assert "reconciled: 10 lookups = 10 trace records" in runs[1].stdout
    assert len({event.run_id for event in TraceReader(trace)}) == 2
    assert len(trace.read_text().splitlines()) == 20


def test_quiet_prints_nothing(invoke: Invoke, suite_file: Path, loaded: Loaded) -> None:
    """Progress and report are not printed; the result is written."""
    result_file = suite_file.with_name("r.json")
    ran = invoke("run", suite_file, "--quiet", "--json", result_file)
    assert (ran.exit_code, ran.output) == (0, "")
    assert SuiteResult.model_validate_json(result_file.read_text()).passed


def test_messages_of_exceptions(
    invoke: Invoke, suite_file: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --show-errors the report has them, otherwise only the class of the exception."""

    def fail(*_: object) -> None:
        raise LookupError("no answer to 'my secret'")

    monkeypatch.setattr("forwardscope.probes.DeltaKL.run", fail)
    hidden, shown = (invoke("run", suite_file, *more) for more in ((), ("--show-errors",)))
    assert (hidden.exit_code, shown.exit_code) == (1, 1)
    assert "LookupError; add show_errors: true (--show-errors) for its message" in hidden.stdout
    assert "secret" not in hidden.output
    assert "LookupError: no answer to 'my secret'" in shown.stdout


@pytest.fixture
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORWARDSCOPE_STORE", raising=False)


@pytest.mark.usefixtures("no_variable")
def test_a_store_answers_the_next_run(invoke: Invoke, suite_file: Path, loaded: Loaded) -> None:
    """A second run has the same scores, pays for verification alone, and reconciles."""
    store, files = suite_file.with_name("s.db"), [suite_file.with_name(f"{n}.json") for n in "ab"]
    for file in files:
        trace = file.with_suffix(".jsonl")
        ran = invoke(
            "run", suite_file, "--store", store, "--verify", "0", "--json", file, "--trace", trace
        )
        assert (ran.exit_code, ran.stderr) == (0, "")
    first, second = (SuiteResult.model_validate_json(file.read_text()) for file in files)
    lines = ran.stdout.splitlines()
    assert f"store: 8 of 8 forward passes answered from disk ({store}), 0 verified" in lines
    assert ["base", "5", "5", "4", "0"] in [line.split()[:5] for line in lines]
    assert second.store is not None
    assert (second.store.hits, second.store.entries) == (8, 8)
    assert (first.backend_stats["forward_passes"], second.backend_stats["forward_passes"]) == (8, 0)
    assert [len(backend.forward_batches) > 0 for backend in loaded] == [True, False]
    assert [probe.score for probe in first.probes] == [probe.score for probe in second.probes]
    tiers = [event.tier for event in TraceReader(files[1].with_suffix(".jsonl"))]
    assert (tiers.count("disk"), len(tiers)) == (8, 10)
    assert second.reconciliation.holds


@pytest.mark.usefixtures("no_variable")
def test_a_stored_value_that_is_wrong_fails_the_run(
    invoke: Invoke, suite_file: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report says so, the run exits with 1, and the next run has the right values."""
    store, script = suite_file.with_name("s.db"), pseudo_random_logits

    def changed(view: ScriptedView, prompt: str) -> object:
        return script(view, prompt + " was another")

    with monkeypatch.context() as patched:
        patched.setattr("tests.cli.conftest.pseudo_random_logits", changed, raising=False)
        invoke("run", suite_file, "--store", store)
    ran = invoke("run", suite_file, "--store", store, "--verify", "1")
    assert loaded
    assert (ran.exit_code, ran.stderr) == (1, "")
    assert "did not agree with the computed one" in ran.stdout
    assert invoke("run", suite_file, "--store", store, "--verify", "1").exit_code == 0


@pytest.mark.usefixtures("no_variable")
def test_where_a_store_is_named(
    invoke: Invoke, suite_file: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option wins over the suite, and the suite over the variable; --no-store over all."""
    places = {name: suite_file.with_name(f"{name}.db") for name in ("variable", "suite", "option")}
    monkeypatch.setenv("FORWARDSCOPE_STORE", str(places["variable"]))
    made = []
    for arguments in ((), ("--no-store",)):
        invoke("run", suite_file, *arguments)
        made.append({name for name, path in places.items() if path.exists()})
    with suite_file.open("a") as file:
        file.write(f"cache: {{store: {places['suite']}, store_max_bytes: 2MiB}}\n")
    for arguments in ((), ("--store", places["option"]), ("--no-cache",)):
        assert invoke("run", suite_file, *arguments).exit_code == 0
        made.append({name for name, path in places.items() if path.exists()})
    assert made == [
        *({"variable"}, {"variable"}, {"variable", "suite"}),
        *({"variable", "suite", "option"}, {"variable", "suite", "option"}),
    ]
    assert len(loaded) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--store", "redis://host/x"), "the path of the store's URL is the number of a database"),
        (("--store", "x.db", "--no-store"), "--store and --no-store contradict each other"),
        (("--store", "x.db", "--no-cache"), "--store and --no-cache contradict each other"),
        (("--store", ""), "--store needs a path, or default"),
        (("--verify", "2"), "--verify"),
    ],
)
def test_stores_that_cannot_be_used(
    invoke: Invoke, suite_file: Path, loaded: Loaded, arguments: tuple[str, ...], message: str
) -> None:
    """They end the run with 2 and a sentence, before a model is loaded."""
    ran = invoke("run", suite_file, *arguments)
    assert ran.exit_code == 2
    assert message in ran.stderr
    assert loaded == []


def test_no_cache(invoke: Invoke, suite_file: Path, loaded: Loaded) -> None:
    """The option takes precedence over the suite, and the report names it."""
    replace(suite_file, "probes:", "cache: {enabled: true}\nprobes:")
    ran = invoke("run", suite_file, "--no-cache")
    assert ran.exit_code == 0
    assert "cache: 0 of 10 lookups answered without a forward pass (0 %)" in ran.stdout
    assert "the cache is off" in ran.stdout


def test_cache_bounds_of_the_suite(invoke: Invoke, suite_file: Path, loaded: Loaded) -> None:
    """The run's cache has the bounds of the suite."""
    replace(suite_file, "probes:", "cache: {max_entries: 3, max_bytes: 50000}\nprobes:")
    assert invoke("run", suite_file, "-q").exit_code == 0
    cache = loaded[0].instrumentation.cache
    assert (cache.maxsize, cache.max_bytes) == (3, 50_000)


@pytest.mark.filterwarnings("default::RuntimeWarning")
def test_a_full_disk(invoke: Invoke, suite_file: Path, loaded: Loaded) -> None:
    """One warning is printed, the run continues, and the report counts lost records."""
    ran = invoke("run", suite_file, "--trace", "/dev/full")
    assert ran.exit_code == 0
    (warning,) = ran.stderr.splitlines()
    assert warning.startswith("warning: trace record not written to /dev/full: ")
    assert "reconciled: 10 lookups = 0 trace records + 10 not written" in ran.stdout


@pytest.mark.parametrize(
    ("prompt", "status", "error"),
    [("interrupt", 130, "KeyboardInterrupt"), ("terminate", 143, None)],
    ids=["KeyboardInterrupt", "SIGTERM"],
)
def test_an_interrupted_run(
    invoke: Invoke, suite_file: Path, loaded: Loaded, prompt: str, status: int, error: str | None
) -> None:
    """Trace and result have what was done so far; the trace also the pass in flight."""
    handler = signal.getsignal(signal.SIGTERM)
    replace(suite_file, "[b, c]", f"[{prompt}]")
    trace, result_file = suite_file.with_name("t.jsonl"), suite_file.with_name("r.json")
    ran = invoke("run", suite_file, "--trace", trace, "--json", result_file)
    assert ran.exit_code == status
    assert ran.stderr.splitlines()[-3:] == [
        f"{trace}: has the lookups so far",
        f"{result_file}: has the 1 finished probe, marked as interrupted",
        "interrupted",
    ]
    assert "Traceback" not in ran.stderr
    events = list(TraceReader(trace))
    assert len(events) == loaded[0].instrumentation.stats.total_lookups == 7
    assert (events[-1].view_id, events[-1].hit, events[-1].error) == ("base", False, error)
    assert loaded[0].forward_batches[-1] == ("base", [prompt])
    assert loaded[0].closed
    result = SuiteResult.model_validate_json(result_file.read_text())
    assert [probe.name for probe in result.probes] == ["first"]
    assert (result.not_run, result.passed, result.complete) == (["second"], False, False)
    assert result.warnings == ["the run was interrupted; without a result: second"]
    assert (result.reconciliation.lookups, result.reconciliation.holds) == (7, True)
    assert signal.getsignal(signal.SIGTERM) == handler


def test_an_interrupt_in_the_first_probe(invoke: Invoke, suite_file: Path, loaded: Loaded) -> None:
    """Without a finished probe there is no result; an older one stays."""
    replace(suite_file, "[a, b]", "[terminate]")
    result_file = suite_file.with_name("r.json")
    result_file.write_text("older")
    ran = invoke("run", suite_file, "--json", result_file)
    assert ran.exit_code == 143
    assert ran.stderr.splitlines()[-1] == "interrupted; no result was written"
    assert result_file.read_text() == "older"


def test_the_result_of_an_interrupted_run_cannot_be_written(
    invoke: Invoke, suite_file: Path, loaded: Loaded
) -> None:
    """The reason is printed, and the exit status is that of the signal."""
    replace(suite_file, "[b, c]", "[terminate]")
    ran = invoke("run", suite_file, "--json", "/dev/full")
    assert ran.exit_code == 143
    assert "/dev/full" in ran.stderr.splitlines()[-2]
    assert ran.stderr.splitlines()[-1] == "interrupted"


def test_chosen_probes(invoke: Invoke, suite_file: Path, loaded: Loaded) -> None:
    """Only the named probes run, in the suite's order."""
    replace(suite_file, "probes:", "probes:\n  - {name: zero, kind: delta_kl, prompts: [x]}")
    result_file = suite_file.with_name("r.json")
    arguments = ("--probe", "second", "--probe", "first", "--json", result_file)
    assert invoke("run", suite_file, *arguments).exit_code == 0
    result = SuiteResult.model_validate_json(result_file.read_text())
    assert [probe.name for probe in result.probes] == ["first", "second"]
    assert result.not_run == []


@pytest.mark.parametrize(
    ("name", "hint"), [("secnd", "did you mean second?"), ("x", "it has first, second")]
)
def test_an_unknown_probe(
    error_of: Callable[..., str], suite_file: Path, name: str, hint: str
) -> None:
    """The error has the names of the suite, before a model is loaded."""
    message = error_of("run", suite_file, "--probe", name)
    assert message == f"--probe: the suite has no probe {name!r}; {hint}"


def test_another_adapter(invoke: Invoke, suite_file: Path, loaded: Loaded) -> None:
    """The option replaces the suite's adapter, and the result has its name."""
    result_file = suite_file.with_name("r.json")
    arguments = ("--adapter", "checkpoint-9", "--json", result_file)
    assert invoke("run", suite_file, *arguments).exit_code == 0
    assert SuiteResult.model_validate_json(result_file.read_text()).adapter == "checkpoint-9"


def test_an_adapter_for_a_full_fine_tune(error_of: Callable[..., str], suite_file: Path) -> None:
    """A suite with two models has no adapter to replace."""
    replace(suite_file, "adapter: some-adapter", "tuned: some-model")
    assert "model.tuned" in error_of("run", suite_file, "--adapter", "a")


def test_a_signal_while_the_model_loads(
    invoke: Invoke,
    suite_file: Path,
    terminate: Callable[[BackendInstrumentation], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run stops once the model is loaded, without a forward pass and without a trace."""
    backends: Loaded = []

    def load(
        spec: SuiteSpec, instrumentation: BackendInstrumentation, *_: object
    ) -> ScriptedBackend:
        backends.append(ScriptedBackend(instrumentation=instrumentation))
        terminate(instrumentation)
        return backends[-1]

    monkeypatch.setattr("forwardscope.cli.running._load", load)
    trace = suite_file.with_name("t.jsonl")
    ran = invoke("run", suite_file, "--trace", trace)
    assert ran.exit_code == 143
    assert ran.stderr.splitlines()[-1] == "interrupted; no result was written"
    assert str(trace) not in ran.stderr
    assert not trace.exists()
    assert (backends[0].forward_batches, backends[0].closed) == ([], True)


def test_a_signal_while_the_result_is_written(
    invoke: Invoke, suite_file: Path, loaded: Loaded, in_thread: Callable[..., Any]
) -> None:
    """The result is written whole, and the run does not say that it is not."""
    pipe = suite_file.with_name("pipe")
    os.mkfifo(pipe)

    def read() -> str:
        writable = os.open(pipe, os.O_RDWR)  # does not wait for the run to open it
        fcntl.fcntl(writable, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        select.select([writable], [], [], 60)  # the run waits until the pipe has room again
        os.kill(os.getpid(), signal.SIGTERM)
        with pipe.open() as opened:
            os.close(writable)
            return opened.read()

    reader = in_thread(read)
    ran = invoke("run", suite_file, "--json", pipe)
    assert len(reader.result(60)) > _PIPE_BYTES
    assert SuiteResult.model_validate_json(reader.result(60)).passed
    assert ran.exit_code == 0
    assert "no result" not in ran.stderr


def test_a_signal_after_the_suite(
    invoke: Invoke, suite_file: Path, loaded: Loaded, in_thread: Callable[..., Any]
) -> None:
    """The signal ends the wait for a last scrape; result, report and exit status do not change."""
    metrics, result_file = suite_file.with_name("m.prom"), suite_file.with_name("r.json")

    def interrupt_after_the_suite() -> None:
        deadline = time.monotonic() + 60
        while not (metrics.exists() and "forwardscope_run_end_" in metrics.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    interrupted = in_thread(interrupt_after_the_suite)
    files = ("--metrics-file", metrics, "--json", result_file)
    ran = invoke("run", suite_file, *files, "--metrics-port", 0, "--metrics-linger", 600)
    interrupted.result(60)
    assert ran.exit_code == 0
    assert "interrupted" not in ran.stderr
    assert "scraped 0 times, not after the end: the wait was interrupted" in ran.stdout
    assert SuiteResult.model_validate_json(result_file.read_text()).passed


def full(*_: object) -> None:
    """Fail as on a full disk."""
    raise OSError(28, "No space left on device")


def test_the_report_is_printed_if_the_result_cannot_be_written(
    invoke: Invoke, suite_file: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit status is 2, and no partial result remains."""
    monkeypatch.setattr(Path, "replace", full)
    ran = invoke("run", suite_file, "--json", suite_file.with_name("r.json"))
    assert ran.exit_code == 2
    assert "cannot be written" in ran.stderr
    assert "cache: 2 of 10 lookups" in ran.stdout
    assert [path.name for path in suite_file.parent.iterdir()] == ["suite.yaml"]


def test_the_result_is_written_if_the_report_cannot_be_printed(
    suite_file: Path, loaded: Loaded, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit status is 2."""
    result_file = suite_file.with_name("r.json")
    with (
        Path("/dev/full").open("w") as full,
        redirect_stdout(full),
        pytest.raises(SystemExit) as ended,
    ):
        app(["run", str(suite_file), "--json", str(result_file)])
    assert ended.value.code == 2
    assert "error: the output cannot be written: No space left on device" in capsys.readouterr().err
    assert json.loads(result_file.read_text())["backend_stats"]["cache_hits"] == 2


def test_files_for_a_pull_request(invoke: Invoke, suite_file: Path, loaded: Loaded) -> None:
    """Verdicts are written as Markdown and as JUnit XML."""
    markdown, junit = suite_file.with_name("r.md"), suite_file.with_name("r.xml")
    assert invoke("run", suite_file, "--markdown", markdown, "--junit", junit).exit_code == 0
    assert "| first | pass |" in markdown.read_text()
    assert '<testcase classname="forwardscope suite" name="second"' in junit.read_text()
