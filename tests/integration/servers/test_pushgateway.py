"""A run whose outcome goes to a real Pushgateway and to a file for node_exporter."""

from __future__ import annotations

import math
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from forwardscope.cli.app import app

from .processes import Pushgateway, Samples, key, parse, until
from .runs import MODEL, NAME, Cli, Run, suite

GROUP = {"job": "forwardscope", "instance": "", "suite": NAME, "model": MODEL}


def failing() -> dict[str, Any]:
    """The same suite, but one probe asks for too much."""
    whole = suite()
    whole["probes"][1]["min_z"] = 1e9
    return whole


def of_run(samples: Samples, name: str, **group: str) -> float:
    """The value of a run gauge at the gateway."""
    return samples[key(f"forwardscope_run_{name}", **GROUP | group)]


def test_what_is_pushed_is_the_result(cli: Cli, pushgateway: Pushgateway) -> None:
    """Run gauges at the gateway are the numbers of the result."""
    run = cli.run(suite(), "--pushgateway", pushgateway.url)
    result, samples = run.result, pushgateway.samples()
    stats, series = result["backend_stats"], result["series"]
    expected = {
        "active": 0,
        "lookups": run.lookups,
        "hits": stats["cache_hits"],
        "forward_passes": stats["forward_passes"],
        "errors": 0,
        "evictions": result["cache"]["evictions"],
        "wall_seconds": result["wall_s"],
        "period_seconds": result["period_s"],
        "spans_dropped": 0,
        "trace_write_errors": 0,
    }
    assert {name: of_run(samples, name) for name in expected} == expected
    spent = sum(one["forward_s"] for one in series)
    assert of_run(samples, "forward_seconds") == pytest.approx(spent)
    end = of_run(samples, "end_timestamp_seconds")
    assert of_run(samples, "last_success_timestamp_seconds") == end
    assert of_run(samples, "start_timestamp_seconds") < end
    info = key("forwardscope_run_info", **GROUP, **_identity(run))
    assert samples[info] == 1
    assert run.delivery("Pushgateway")["ok"]


def _identity(run: Run) -> dict[str, str]:
    result = run.result
    return {
        "adapter": result["adapter"],
        "run_id": result["run_id"],
        "trace_id": result["trace_id"] or "",
        "device": result["device"],
    }


def test_probes_are_pushed(cli: Cli, pushgateway: Pushgateway) -> None:
    """Scores, durations and verdicts of all probes are the result's."""
    run = cli.run(failing(), "--pushgateway", pushgateway.url)
    samples = pushgateway.samples()
    for probe in run.result["probes"]:
        group = GROUP | {"probe": probe["name"]}
        for gauge, name in (("score", "score"), ("raw", "raw"), ("z_score", "z_score")):
            value = samples[key(f"forwardscope_probe_{gauge}", **group)]
            assert value == probe[name] or (math.isnan(value) and probe[name] is None)
        assert samples[key("forwardscope_probe_duration_seconds", **group)] == probe["duration_s"]
        for verdict in ("pass", "fail", "error", "skip"):
            value = samples[key("forwardscope_probe_verdict", **group, verdict=verdict)]
            assert value == (verdict == probe["verdict"])


def test_nothing_but_the_run_is_pushed(cli: Cli, pushgateway: Pushgateway) -> None:
    """A gateway keeps what it gets for ever, so a backend's counters are not sent there."""
    cli.run(suite(), "--pushgateway", pushgateway.url)
    names = {name for name, _ in pushgateway.samples()}
    assert {name.split("_")[1] for name in names} == {"run", "probe"}


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("nightly", "my tiny one"),
        ("every night", "tiny"),
        ("day/night", "my models/tiny é"),
        ("?", "/"),
        ("a+b", "c%2F#&"),
    ],
)
def test_names_are_the_groups_labels_as_they_are(
    cli: Cli, pushgateway: Pushgateway, name: str, model: str
) -> None:
    """Spaces, slashes and whatever else is in a name reach the gateway unchanged, as one group."""
    spec = suite(model={"path": model, "adapter": "a"}, name=name)
    run = cli.run(spec, "--pushgateway", pushgateway.url)
    (group,) = pushgateway.groups()
    expected = {"job": "forwardscope", "suite": name, "model": model}
    assert {name: group["labels"].get(name) for name in expected} == expected
    assert run.delivery("Pushgateway")["ok"]


def test_a_failed_run_keeps_the_last_success(cli: Cli, pushgateway: Pushgateway) -> None:
    """It is over and has an end of its own, and tells when a run last passed."""
    passed = cli.run(suite(), "--pushgateway", pushgateway.url)
    before = pushgateway.samples()
    failed = cli.run(failing(), "--pushgateway", pushgateway.url)
    after = pushgateway.samples()
    assert (passed.status, failed.status) == (0, 1)
    success = of_run(before, "last_success_timestamp_seconds")
    assert of_run(after, "last_success_timestamp_seconds") == success
    assert of_run(after, "end_timestamp_seconds") > success
    assert of_run(after, "active") == 0
    (group,) = pushgateway.groups()
    assert group["labels"] | {"instance": ""} == GROUP
    assert float(group["push_failure_time_seconds"]["metrics"][0]["value"]) == 0


def test_a_run_is_pushed_as_it_goes(cli: Cli, pushgateway: Pushgateway) -> None:
    """While it is held the gateway has it as active, with the probes so far, and no end."""
    live = cli.start(suite(), "--pushgateway", pushgateway.url, hold=True).until_held()
    verdict = key("forwardscope_probe_verdict", **GROUP, probe="change", verdict="pass")
    samples = until(lambda: _with(pushgateway.samples(), verdict), "the second probe is pushed")
    assert of_run(samples, "active") == 1
    names = {name for name, _ in samples}
    assert "forwardscope_run_end_timestamp_seconds" not in names
    held = {"name": "forwardscope_probe_verdict", **GROUP, "probe": "held"}
    of_held = [samples[key(**held, verdict=one)] for one in ("pass", "fail", "error", "skip")]
    assert of_held == [0, 0, 0, 0]
    live.release()
    assert live.finish().status == 0
    assert of_run(pushgateway.samples(), "active") == 0


def test_a_run_does_not_show_verdicts_of_the_run_before(cli: Cli, pushgateway: Pushgateway) -> None:
    """From its first push on, all verdicts under its id are its own."""
    cli.run(suite(), "--pushgateway", pushgateway.url)
    live = cli.start(suite(), "--pushgateway", pushgateway.url, hold=True).until_held()
    held = key("forwardscope_probe_verdict", **GROUP, probe="held", verdict="pass")
    assert of_run(pushgateway.samples(), "active") == 1
    assert pushgateway.samples()[held] == 0
    live.release()
    live.finish()
    assert pushgateway.samples()[held] == 1


def test_a_run_whose_port_is_in_use_is_pushed(cli: Cli, pushgateway: Pushgateway) -> None:
    """The gateway has a run that ended and could not start, though no exporter was opened."""
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        run = cli.run(suite(), "--pushgateway", pushgateway.url, "--metrics-port", port)
    assert run.status == 2
    assert_could_not_start(pushgateway)


def test_a_run_whose_output_cannot_be_written_is_pushed(
    cli: Cli, pushgateway: Pushgateway, tmp_path: Path
) -> None:
    """The gateway has a run that could not start; no file is written."""
    file = tmp_path / "file"
    file.touch()
    metrics = file / "run.prom"
    run = cli.run(suite(), "--pushgateway", pushgateway.url, "--metrics-file", metrics)
    assert run.status == 2
    assert_could_not_start(pushgateway)
    assert [one.name for one in tmp_path.iterdir() if one.suffix != ".log"] == ["file"]


def assert_could_not_start(gateway: Pushgateway) -> None:
    """The only run at a gateway has ended, and did not start."""
    pushed = gateway.samples()
    assert of_run(pushed, "started") == of_run(pushed, "passed") == of_run(pushed, "active") == 0
    assert of_run(pushed, "end_timestamp_seconds") > 0


def test_two_runs_at_once(cli: Cli, pushgateway: Pushgateway) -> None:
    """Both outcomes stay until a later run has passed, which deletes the additional group."""
    live = cli.start(suite(), "--pushgateway", pushgateway.url, hold=True).until_held()
    failed = cli.run(failing(), "--pushgateway", pushgateway.url)
    live.release()
    passed = live.finish()
    infos = [labels for name, labels in pushgateway.samples() if name == "forwardscope_run_info"]
    ids = {dict(labels)["run_id"] for labels in infos}
    assert ids == {failed.result["run_id"], passed.result["run_id"]}
    cli.run(failing(), "--pushgateway", pushgateway.url)
    assert len(pushgateway.groups()) == 2
    cli.run(suite(), "--pushgateway", pushgateway.url)
    (group,) = pushgateway.groups()
    assert group["labels"] | {"instance": ""} == GROUP


@pytest.mark.parametrize("name", ["nightly", "a/b c", "é?"])
def test_delete_a_retired_suite(cli: Cli, pushgateway: Pushgateway, name: str) -> None:
    """All groups of the suite are deleted, and no other; a second time there is none."""
    cli.run(suite(name="other"), "--pushgateway", pushgateway.url)
    cli.run(suite(name=name), "--pushgateway", pushgateway.url)
    invoke = CliRunner().invoke
    command = ["pushgateway", "delete", name, "--url", pushgateway.url]
    deleted = invoke(app, command)
    assert deleted.exit_code == 0, deleted.output
    assert name in deleted.output
    (group,) = pushgateway.groups()
    assert group["labels"]["suite"] == "other"
    assert invoke(app, command).exit_code == 2


def test_a_run_that_is_told_to_end_says_so(cli: Cli, pushgateway: Pushgateway) -> None:
    """A scheduler's SIGTERM leaves no run that seems to go on for ever."""
    live = cli.start(suite(), "--pushgateway", pushgateway.url, hold=True).until_held()
    live.signal_until_noticed(signal.SIGTERM)
    live.release()
    assert live.process.wait(30) == 143
    samples = pushgateway.samples()
    assert of_run(samples, "active") == 0
    assert of_run(samples, "end_timestamp_seconds") > 0
    names = {name for name, _ in samples}
    assert "forwardscope_run_last_success_timestamp_seconds" not in names


_OWN_LABELS = {"suite", "model", "adapter", "run_id", "trace_id", "device", "probe", "verdict"}


def _with(samples: Samples, wanted: tuple[str, frozenset[tuple[str, str]]]) -> Samples:
    return samples if wanted in samples else {}


def test_the_file_has_what_the_gateway_has(
    cli: Cli, pushgateway: Pushgateway, tmp_path: Path
) -> None:
    """Sample for sample, but for the labels that the gateway adds."""
    file = tmp_path / "run.prom"
    cli.run(suite(), "--pushgateway", pushgateway.url, "--metrics-file", file)
    pushed = {
        key(name, **{k: v for k, v in labels if k in _OWN_LABELS}): value
        for (name, labels), value in pushgateway.samples().items()
    }
    assert parse(file.read_text()) == pytest.approx(pushed, nan_ok=True)
    assert len(pushed) > 30


def test_the_file_is_replaced_whole(cli: Cli, tmp_path: Path) -> None:
    """Who has the file open reads what it was; nothing else is left in the folder."""
    folder = tmp_path / "textfiles"
    file = folder / "run.prom"
    live = cli.start(suite(), "--metrics-file", file, hold=True).until_held()
    with file.open() as opened:
        live.release()
        run = live.finish()
        before = parse(opened.read())
    after = parse(file.read_text())
    active = key("forwardscope_run_active", suite=NAME, model=MODEL)
    assert (before[active], after[active]) == (1, 0)
    assert key("forwardscope_run_period_seconds", suite=NAME, model=MODEL) in before
    assert [one.name for one in folder.iterdir()] == ["run.prom"]
    assert run.delivery(str(file)) == {"to": str(file), "what": "metrics written", "ok": True}


def test_a_gateway_that_says_no_is_told(cli: Cli, otlp_http: Any) -> None:
    """A server that answers, but is no Pushgateway, is named with the status that it gave."""
    run = cli.run(suite(), "--pushgateway", otlp_http.url)
    told = run.delivery("Pushgateway")
    assert not told["ok"]
    assert "HTTP 4" in told["what"]
    assert run.status == 0
