"""Running with telemetry: options over the suite's block, files, and what the report ends with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import Result

from forwardscope import BackendInstrumentation
from forwardscope.cli.options import RunOptions
from forwardscope.core.series import Counts, SeriesKey
from forwardscope.suite import SuiteSpec, load_suite
from forwardscope.suite.spec import TelemetrySpec
from forwardscope.testing import ScriptedBackend

Invoke = Callable[..., Result]
_REFUSED = "http://127.0.0.1:9"  # discard: nobody listens there
_OTEL = ("ENDPOINT", "TRACES_ENDPOINT", "PROTOCOL", "TRACES_PROTOCOL")


@pytest.fixture(autouse=True)
def no_standard_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs these tests may have a collector of their own."""
    for name in _OTEL:
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    monkeypatch.delenv("TRACEPARENT", raising=False)


def samples(path: Path) -> dict[str, float]:
    """Return the samples of a metrics file that have no labels but suite and model."""
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
        if set(sample.labels) == {"suite", "model"}
    }


def test_options_go_before_the_suite(suite_file: Path) -> None:
    """What the command line does not say is the suite's, and then the default."""
    block = "telemetry:\n  otlp: http://suite:1\n  metrics_port: 7\n  span_budget: all\n"
    suite_file.write_text(suite_file.read_text() + block)
    options = RunOptions(otlp="http://option:2", metrics_linger=3.0, no_cache=True)
    spec = options.over(load_suite(suite_file))
    assert spec.telemetry == TelemetrySpec(
        otlp="http://option:2", metrics_port=7, span_budget="all", metrics_linger=3.0
    )
    assert spec.cache.enabled is False


def test_every_key_of_the_block_is_an_option() -> None:
    """The same names in both."""
    assert set(TelemetrySpec.model_fields) <= set(RunOptions.__dataclass_fields__)


def test_metrics_file_and_report_agree_with_the_result(
    invoke: Invoke, suite_file: Path, loaded: list[ScriptedBackend], tmp_path: Path
) -> None:
    """The file has the run's numbers, and the report and the result say that it was written."""
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


def test_what_does_not_arrive_is_named_and_changes_nothing_else(
    invoke: Invoke, suite_file: Path, loaded: list[ScriptedBackend], tmp_path: Path
) -> None:
    """Neither exit status nor numbers change; the spans are counted as dropped."""
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


def test_port_is_told_when_the_run_begins(
    invoke: Invoke, suite_file: Path, loaded: list[ScriptedBackend]
) -> None:
    """A free port is no use to whom it is not told; a missed scrape is."""
    ran = invoke("run", suite_file, "--metrics-port", 0, "--metrics-linger", 0.01)
    (told,) = ran.stderr.splitlines()
    url = told.removeprefix("metrics: ")
    assert f"{url}: scraped 0 times, not within 0.01 s after the end" in ran.stdout
    assert ran.exit_code == 0
    assert invoke("run", suite_file, "--metrics-port", 0, "--quiet").stderr == ""


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--otlp", "nowhere"], "otlp: 'nowhere' is no URL of a server"),
        (["--pushgateway", "host:9091"], "write it like http://127.0.0.1:9091"),
        (["--metrics-linger", "5"], "waits for a scrape; say where: add --metrics-port N"),
        (["--metrics-port", "0", "--metrics-address", "203.0.113.1"], "another --metrics-address"),
        (["--metrics-file", "/proc/nobody/run.prom"], "the metrics cannot be written to"),
        (["--metrics-file", "same", "--json", "same"], "cannot hold both"),
        (["--span-budget", "many"], "neither a whole number nor all"),
        (["--otlp-protocol", "carrier-pigeon"], "'http/protobuf', 'grpc'"),
    ],
)
def test_mistakes_are_told_before_the_model_loads(
    invoke: Invoke,
    suite_file: Path,
    loaded: list[ScriptedBackend],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    told: str,
) -> None:
    """Exit 2, one sentence with the way out, nothing loaded and nothing left behind."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    ran = invoke("run", suite_file, *options)
    assert ran.exit_code == 2
    assert told in " ".join(ran.stderr.split())
    assert loaded == []
    assert sorted(tmp_path.iterdir()) == before


def test_an_aborted_run_is_published_as_over(
    invoke: Invoke, suite_file: Path, loaded: list[ScriptedBackend], tmp_path: Path
) -> None:
    """After an interrupt the gauges say that it is over, neither whole nor a success.

    What it was at did not fail, and what was delivered is told.
    """
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
    ("prompts", "errors", "complete", "success"),
    [("[b, c]", 0, 1, True), ("[b, raise]", 1, 0, False)],
    ids=["measured", "error"],
)
def test_a_run_is_complete_where_all_its_probes_were_measured(
    invoke: Invoke,
    suite_file: Path,
    loaded: list[ScriptedBackend],
    tmp_path: Path,
    prompts: str,
    errors: int,
    complete: int,
    success: bool,
) -> None:
    """A probe that erred asked less, so what the run paid says nothing."""
    suite_file.write_text(suite_file.read_text().replace("[b, c]", prompts))
    path = tmp_path / "run.prom"
    invoke("run", suite_file, "--metrics-file", path)
    found = samples(path)
    assert len(loaded) == 1
    assert found["forwardscope_run_active"] == 0
    assert found["forwardscope_run_errors"] == errors
    assert found["forwardscope_run_complete"] == complete
    assert ("forwardscope_run_last_success_timestamp_seconds" in found) == success


def test_a_run_that_fails_is_complete_too(
    invoke: Invoke, suite_file: Path, loaded: list[ScriptedBackend], tmp_path: Path
) -> None:
    """A verdict of `fail` is a finding."""
    suite_file.write_text(suite_file.read_text().replace("0.000001", "1000"))
    path = tmp_path / "run.prom"
    assert invoke("run", suite_file, "--metrics-file", path).exit_code == 1
    assert len(loaded) == 1
    assert samples(path)["forwardscope_run_complete"] == 1


@pytest.mark.parametrize("options", [["--metrics-port", "0"], []])
def test_series_begin_while_the_model_loads(
    invoke: Invoke, suite_file: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    """A scrape in that time sees them at 0; where nobody can scrape, no work is done for it."""
    begun: dict[SeriesKey, Counts] = {}

    def load(spec: SuiteSpec, instrumentation: BackendInstrumentation) -> ScriptedBackend:
        begun.update(instrumentation.ledger.snapshot().series)
        return ScriptedBackend(instrumentation=instrumentation)

    monkeypatch.setattr("forwardscope.cli.running._load", load)
    invoke("run", suite_file, *options)
    probes = {None, "first", "second"} if options else set()
    assert {key.probe for key in begun} == probes
    assert all(counts == Counts() for counts in begun.values())
