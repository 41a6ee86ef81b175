"""`forwardscope run` with telemetry: options, the metrics file and the outcomes of exports."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from socket import create_server
from typing import cast
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import Result

from forwardscope import BackendInstrumentation
from forwardscope.cli.options import RunOptions
from forwardscope.cli.telemetry import PublishObserver
from forwardscope.core.series import Counts, SeriesKey
from forwardscope.suite import SuiteSpec, load_suite
from forwardscope.suite.observer import RunStarted
from forwardscope.suite.result import ProbeResult
from forwardscope.suite.spec import TelemetrySpec
from forwardscope.testing import ScriptedBackend, ScriptedView, pseudo_random_logits
from forwardscope.text import plural

from .metrics_receiver import receive_http

Invoke = Callable[..., Result]
_REFUSED = "http://127.0.0.1:9"  # the discard port, which has no server
_OTEL = tuple(
    f"{signal}{setting}"
    for signal in ("", "TRACES_", "METRICS_")
    for setting in ("ENDPOINT", "PROTOCOL")
)


@pytest.fixture(autouse=True)
def no_standard_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove variables of the machine that name an OTLP receiver."""
    for name in _OTEL:
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    monkeypatch.delenv("TRACEPARENT", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")


def samples(path: Path) -> dict[str, float]:
    """Return the samples of a metrics file whose labels are suite and model."""
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
        if set(sample.labels) == {"suite", "model"}
    }


def test_options_take_precedence_over_the_suite(suite_file: Path) -> None:
    """Settings without an option are those of the suite, or the default."""
    block = "telemetry:\n  otlp: http://suite:1\n  metrics_port: 7\n  span_budget: all\n"
    suite_file.write_text(suite_file.read_text() + block)
    options = RunOptions(otlp="http://option:2", metrics_linger=3.0, no_cache=True)
    spec = options.override(load_suite(suite_file))
    assert spec.telemetry == TelemetrySpec(
        otlp="http://option:2", metrics_port=7, span_budget="all", metrics_linger=3.0
    )
    assert spec.cache.enabled is False


def test_every_telemetry_setting_is_an_option() -> None:
    """The names are equal."""
    assert set(TelemetrySpec.model_fields) <= set(RunOptions.__dataclass_fields__)


def test_metrics_file_and_report_agree_with_the_result(
    invoke: Invoke, suite_file: Path, loaded: list[ScriptedBackend], tmp_path: Path
) -> None:
    """The file has the run's counts; report and result have the outcome of the export."""
    path, result_path = tmp_path / "run.prom", tmp_path / "r.json"
    ran = invoke("run", suite_file, "--metrics-file", path, "--json", result_path)
    assert ran.exit_code == 0
    result = json.loads(result_path.read_text())
    found = samples(path)
    stats = result["backend_stats"]
    assert found["forwardscope_run_lookups"] == result["reconciliation"]["lookups"] == 10
    assert found["forwardscope_run_forward_passes"] == stats["forward_passes"]
    assert found["forwardscope_run_hits"] == stats["cache_hits"]
    assert found["forwardscope_run_wall_seconds"] == result["wall_s"]
    assert found["forwardscope_run_active"] == 0
    assert found["forwardscope_run_last_success_timestamp_seconds"] > 0
    assert result["delivery"] == [{"to": str(path), "what": "metrics written", "ok": True}]
    assert f"{path}: metrics written" in ran.stdout.splitlines()


def test_failed_exports(
    invoke: Invoke, suite_file: Path, loaded: list[ScriptedBackend], tmp_path: Path
) -> None:
    """The report has the reasons, and spans count as dropped; the exit status does not change."""
    result_path = tmp_path / "r.json"
    ran = invoke(
        *("run", suite_file, "--json", result_path, "--trace", tmp_path / "t.jsonl"),
        *("--otlp", _REFUSED, "--pushgateway", _REFUSED),
    )
    assert ran.exit_code == 0
    result = json.loads(result_path.read_text())
    assert result["reconciliation"] == {
        "lookups": 10,
        "trace_records": 10,
        "trace_write_errors": 0,
        "spans": {"dropped": 10},
        "holds": True,
    }
    spans, push = result["delivery"]
    assert (spans["to"], spans["ok"]) == (f"OTLP {_REFUSED}", False)
    assert spans["what"].startswith("0 spans exported, ")
    assert spans["what"].endswith("dropped: Connection refused")
    assert push["what"] == "the run's end was not pushed: Connection refused"
    last = ran.stdout.splitlines()[-1]
    assert last == "reconciled: 10 lookups = 10 trace records = spans 10 dropped"
    assert "Traceback" not in ran.stderr


def test_quiet_says_what_was_not_delivered(
    invoke: Invoke, suite_file: Path, loaded: list[ScriptedBackend], tmp_path: Path
) -> None:
    """One line on stderr for each, and none for what was delivered."""
    ran = invoke(
        *("run", suite_file, "--quiet", "--metrics-file", tmp_path / "run.prom"),
        *("--otlp", _REFUSED, "--pushgateway", _REFUSED),
    )
    spans, push = ran.stderr.splitlines()
    assert spans.startswith(f"warning: OTLP {_REFUSED}: 0 spans exported, ")
    assert push.endswith(": the run's end was not pushed: Connection refused")
    assert (ran.exit_code, ran.stdout) == (0, "")


def test_quiet_says_so_of_an_interrupted_run(
    invoke: Invoke, suite_file: Path, loaded: list[ScriptedBackend], tmp_path: Path
) -> None:
    """What was delivered is not named."""
    suite_file.write_text(suite_file.read_text().replace("[b, c]", "[b, interrupt]"))
    ran = invoke(
        *("run", suite_file, "--quiet", "--metrics-file", tmp_path / "run.prom"),
        *("--pushgateway", _REFUSED, "--json", tmp_path / "r.json"),
    )
    push, interrupted = ran.stderr.splitlines()
    assert push.endswith(": the run's end was not pushed: Connection refused")
    assert (ran.exit_code, interrupted) == (130, "interrupted")


def test_the_metrics_url_is_printed(
    invoke: Invoke, suite_file: Path, loaded: list[ScriptedBackend]
) -> None:
    """The URL is printed at the start unless quiet; the report has a missing last scrape."""
    ran = invoke("run", suite_file, "--metrics-port", 0, "--metrics-linger", 0.01)
    (line,) = ran.stderr.splitlines()
    url = line.removeprefix("metrics: ")
    assert f"{url}: scraped 0 times, not within 0.01 s after the end" in ran.stdout
    assert ran.exit_code == 0
    assert invoke("run", suite_file, "--metrics-port", 0, "--quiet").stderr == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--otlp", "nowhere"], "otlp is not the URL of a server"),
        (["--otlp-metrics", "nowhere"], "otlp_metrics is not the URL of a server"),
        (["--pushgateway", "host:9091"], "write it like http://127.0.0.1:9091"),
        (["--metrics-linger", "5"], "needs a metrics endpoint; add --metrics-port N"),
        (["--metrics-port", "0", "--metrics-address", "203.0.113.1"], "another --metrics-address"),
        (["--metrics-file", "/proc/nobody/run.prom"], "the metrics cannot be written to"),
        (["--metrics-file", "same", "--json", "same"], "cannot hold both"),
        (["--span-budget", "many"], "neither a whole number nor all"),
        (["--otlp-protocol", "carrier-pigeon"], "'http/protobuf', 'grpc'"),
    ],
)
def test_invalid_options(
    invoke: Invoke,
    suite_file: Path,
    loaded: list[ScriptedBackend],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    """The message has a fix; no model is loaded and no file remains."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    ran = invoke("run", suite_file, *options)
    assert ran.exit_code == 2
    assert message in " ".join(ran.stderr.split())
    assert loaded == []
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("option", ["--otlp", "--otlp-metrics", "--pushgateway"])
@pytest.mark.parametrize(
    "url", [f"{_REFUSED}/?token=s3cr3t", f"{_REFUSED}/s3cr3t", "http://me:s3cr3t@127.0.0.1:9"]
)
def test_secrets_of_a_url_are_not_shown(
    invoke: Invoke,
    suite_file: Path,
    loaded: list[ScriptedBackend],
    tmp_path: Path,
    option: str,
    url: str,
) -> None:
    """Report and result have scheme, host and port of a server, and the reason of a failure."""
    path = tmp_path / "r.json"
    ran = invoke("run", suite_file, option, url, "--json", path)
    assert ran.exit_code == 0
    (delivery,) = json.loads(path.read_text())["delivery"]
    assert delivery["to"].split()[-1] == _REFUSED
    assert delivery["what"].endswith(": Connection refused")
    assert "s3cr3t" not in ran.output + path.read_text()


def test_metrics_over_otlp(
    invoke: Invoke, suite_file: Path, loaded: list[ScriptedBackend], tmp_path: Path
) -> None:
    """The last request has the run's end and the counters of the backend, as the result has."""
    path = tmp_path / "r.json"
    with receive_http() as receiver:
        ran = invoke("run", suite_file, "--otlp-metrics", receiver.url, "--json", path)
    assert ran.exit_code == 0
    stats = json.loads(path.read_text())["backend_stats"]
    assert receiver.total("forwardscope_run_active") == 0
    assert receiver.total("forwardscope_run_lookups") == 10
    assert receiver.total("forwardscope_cache_lookups_total") == 10
    assert receiver.total("forwardscope_forward_passes_total") == stats["forward_passes"]
    assert receiver.resource()["service.instance.id"] == "suite on some-model"
    (delivery,) = json.loads(path.read_text())["delivery"]
    assert delivery["to"] == f"OTLP metrics {receiver.url}"
    assert delivery["what"] == f"sent {plural(len(receiver.requests), 'time')}"
    assert f"{delivery['to']}: {delivery['what']}" in ran.stdout


def test_counters_over_otlp_begin_at_zero(
    invoke: Invoke, suite_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start is sent before the first forward pass, with the series of the suite's probes."""
    with receive_http() as receiver:
        arrived = cache(lambda: receiver.received.acquire(timeout=60))

        def script(view: ScriptedView, prompt: str) -> object:
            assert arrived()
            return pseudo_random_logits(view, prompt)

        def load(
            spec: SuiteSpec, instrumentation: BackendInstrumentation, *_: object
        ) -> ScriptedBackend:
            return ScriptedBackend(script, instrumentation=instrumentation)

        monkeypatch.setattr("forwardscope.cli.running._load", load)
        invoke("run", suite_file, "--otlp-metrics", receiver.url)
    assert receiver.total("forwardscope_run_active", request=0) == 1
    assert receiver.total("forwardscope_forward_passes_total", request=0) == 0
    points = receiver.points("forwardscope_forward_passes_total", request=0)
    values = {one.value.string_value for point in points for one in point.attributes}
    assert {"first", "second"} <= values


@pytest.mark.parametrize(
    ("options", "noticed"),
    [
        ([], True),
        (["--metrics-port", "0"], True),
        (["--pushgateway", _REFUSED], False),
        (["--metrics-file", "run.prom"], False),
        (["--quiet"], False),
    ],
)
def test_metrics_to_otlp_alone(
    invoke: Invoke,
    suite_file: Path,
    loaded: list[ScriptedBackend],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    noticed: bool,
) -> None:
    """A line says that alerts on suites need gauges that last."""
    monkeypatch.chdir(tmp_path)
    ran = invoke("run", suite_file, "--otlp-metrics", _REFUSED, *options)
    assert ("alerts on suites also need --pushgateway or --metrics-file" in ran.stderr) == noticed


def test_a_receiver_of_spans_alone_gets_no_metrics(
    invoke: Invoke,
    suite_file: Path,
    loaded: list[ScriptedBackend],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An endpoint for all signals is one for spans, unless OTEL_METRICS_EXPORTER names otlp."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", _REFUSED)
    path = tmp_path / "r.json"
    receivers = []
    for exporter in ("", "otlp"):
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", exporter)
        invoke("run", suite_file, "--json", path)
        receivers.append([one["to"] for one in json.loads(path.read_text())["delivery"]])
    assert receivers == [[f"OTLP {_REFUSED}"], [f"OTLP {_REFUSED}", f"OTLP metrics {_REFUSED}"]]


def test_servers_that_hang_share_the_time_at_the_end(
    invoke: Invoke,
    suite_file: Path,
    loaded: list[ScriptedBackend],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Spans, metrics and pushes together take about as long as one of them alone may."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "100")
    path = tmp_path / "r.json"
    with create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        before = time.monotonic()
        ran = invoke(
            *("run", suite_file, "--json", path),
            *("--otlp", url, "--otlp-metrics", url, "--pushgateway", url),
        )
        took = time.monotonic() - before
    assert ran.exit_code == 0
    assert [one["ok"] for one in json.loads(path.read_text())["delivery"]] == [False] * 3
    assert took < 8  # 5 s, and a slow machine's share; one after the other they would take 12


@pytest.mark.parametrize(
    ("hanging", "reached"), [("--otlp", "--otlp-metrics"), ("--otlp-metrics", "--pushgateway")]
)
def test_a_server_that_hangs_takes_no_time_of_another(
    invoke: Invoke,
    suite_file: Path,
    loaded: list[ScriptedBackend],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hanging: str,
    reached: str,
) -> None:
    """The other server receives the run's end."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "100")
    path = tmp_path / "r.json"
    with create_server(("127.0.0.1", 0)) as server, receive_http() as receiver:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        invoke("run", suite_file, "--json", path, hanging, url, reached, receiver.url)
    failed, delivered = json.loads(path.read_text())["delivery"]
    assert (failed["ok"], delivered["ok"]) == (False, True)
    assert receiver.paths[-1][0].startswith(("/v1/metrics", "/metrics/job/"))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "localhost:4318"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
    ],
)
def test_invalid_variables(
    invoke: Invoke,
    suite_file: Path,
    loaded: list[ScriptedBackend],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
) -> None:
    """The message names the variable, and no model is loaded."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", _REFUSED)
    monkeypatch.setenv(variable, value)
    ran = invoke("run", suite_file)
    assert ran.exit_code == 2
    assert ran.stderr.startswith(f"error: {variable} ")
    assert len(ran.stderr.splitlines()) == 1
    assert loaded == []


@pytest.mark.parametrize(("every_s", "expected"), [(3600.0, 1), (0.0, 101)])
def test_gauges_are_published_once_in_an_interval(every_s: float, expected: int) -> None:
    """Probes that follow within the interval are published together."""
    published: list[float] = []
    observer = PublishObserver(lambda: published.append(1), every_s)
    observer.run_started(cast("RunStarted", None))
    for _ in range(100):
        observer.probe_finished(cast("ProbeResult", None))
    assert len(published) == expected


def test_metrics_of_an_interrupted_run(
    invoke: Invoke, suite_file: Path, loaded: list[ScriptedBackend], tmp_path: Path
) -> None:
    """The run is neither active, complete nor successful, and has no probe error."""
    suite_file.write_text(suite_file.read_text().replace("[b, c]", "[b, interrupt]"))
    path = tmp_path / "run.prom"
    ran = invoke("run", suite_file, "--metrics-file", path)
    assert ran.exit_code == 130
    found = samples(path)
    assert found["forwardscope_run_active"] == 0
    assert found["forwardscope_run_complete"] == 0
    assert found["forwardscope_run_errors"] == 0
    counted = sum(loaded[0].instrumentation.ledger.snapshot().series.values(), Counts())
    assert counted.errors == {"KeyboardInterrupt": 1}
    assert f"{path}: metrics written" in ran.stderr
    assert found["forwardscope_run_end_timestamp_seconds"] > 0
    assert "forwardscope_run_last_success_timestamp_seconds" not in found


@pytest.mark.parametrize(
    ("old", "new", "errors", "complete", "successful"),
    [
        ("[b, c]", "[b, c]", 0, 1, True),
        ("0.000001", "1000", 0, 1, False),
        ("[b, c]", "[b, raise]", 1, 0, False),
    ],
    ids=["pass", "fail", "error"],
)
def test_a_run_is_complete_if_no_probe_has_an_error(
    invoke: Invoke,
    suite_file: Path,
    loaded: list[ScriptedBackend],
    tmp_path: Path,
    old: str,
    new: str,
    errors: int,
    complete: int,
    successful: bool,
) -> None:
    """A verdict of `fail` is a result; a probe with an error has fewer lookups."""
    suite_file.write_text(suite_file.read_text().replace(old, new))
    path = tmp_path / "run.prom"
    invoke("run", suite_file, "--metrics-file", path)
    found = samples(path)
    assert len(loaded) == 1
    assert found["forwardscope_run_active"] == 0
    assert found["forwardscope_run_errors"] == errors
    assert found["forwardscope_run_complete"] == complete
    assert ("forwardscope_run_last_success_timestamp_seconds" in found) == successful


@pytest.mark.parametrize("options", [["--metrics-port", "0"], []])
def test_series_exist_while_the_model_loads(
    invoke: Invoke, suite_file: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    """A scrape during loading reads zeros; without an endpoint no series is created."""
    series: dict[SeriesKey, Counts] = {}

    def load(
        spec: SuiteSpec, instrumentation: BackendInstrumentation, *_: object
    ) -> ScriptedBackend:
        series.update(instrumentation.ledger.snapshot().series)
        return ScriptedBackend(instrumentation=instrumentation)

    monkeypatch.setattr("forwardscope.cli.running._load", load)
    invoke("run", suite_file, *options)
    probes = {None, "first", "second"} if options else set()
    assert {key.probe for key in series} == probes
    assert all(counts == Counts() for counts in series.values())


def test_the_process_is_scraped_and_not_in_the_file(
    invoke: Invoke, suite_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The endpoint has `process_*`; the file has CPU time and memory as gauges of the run.

    node_exporter has metrics named `process_*` too, and rejects a file with them.
    """
    scraped, path = [], tmp_path / "run.prom"
    with create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    def load(
        spec: SuiteSpec, instrumentation: BackendInstrumentation, *_: object
    ) -> ScriptedBackend:
        with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            scraped.append(answer.read().decode())
        return ScriptedBackend(instrumentation=instrumentation)

    monkeypatch.setattr("forwardscope.cli.running._load", load)
    invoke("run", suite_file, "--metrics-port", port, "--metrics-file", path)
    assert "\nprocess_cpu_seconds_total " in scraped[0]
    assert "\nprocess_resident_memory_bytes " in scraped[0]
    assert {"forwardscope_run_cpu_seconds", "forwardscope_run_memory_peak_bytes"} <= set(
        samples(path)
    )
    assert "\nprocess_" not in path.read_text()


def test_a_run_that_cannot_load_its_model_is_reported(
    invoke: Invoke, suite_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its gauges are those of a run that ended, did not start and did not pass."""
    path = tmp_path / "run.prom"
    suite_file.write_text(suite_file.read_text().replace("some-model", str(tmp_path / "gone")))
    ran = invoke("run", suite_file, "--metrics-file", path)
    assert ran.exit_code == 2
    found = samples(path)
    assert found["forwardscope_run_started"] == found["forwardscope_run_passed"] == 0
    assert found["forwardscope_run_active"] == found["forwardscope_run_lookups"] == 0
    assert found["forwardscope_run_end_timestamp_seconds"] > 0
    assert "forwardscope_run_last_success_timestamp_seconds" not in found


def test_a_run_that_cannot_open_its_port_is_reported(
    invoke: Invoke, suite_file: Path, tmp_path: Path
) -> None:
    """The metrics file has a run that could not start."""
    path = tmp_path / "run.prom"
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        ran = invoke("run", suite_file, "--metrics-file", path, "--metrics-port", port)
    assert ran.exit_code == 2
    assert samples(path)["forwardscope_run_started"] == 0
