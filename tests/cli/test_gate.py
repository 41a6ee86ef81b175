"""`forwardscope gate`, on runs of the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from forwardscope.analysis.run_files import result_markdown
from forwardscope.suite import SuiteResult
from forwardscope.testing import ScriptedBackend

Invoke = Callable[..., Result]
ErrorOf = Callable[..., str]
Files = dict[str, Path]


@pytest.fixture
def runs(invoke: Invoke, suite_file: Path, loaded: list[ScriptedBackend], tmp_path: Path) -> Files:
    """Results and traces of a run, an equal run, and a run with too small a cache."""
    files: Files = {}
    for name, cache in (("good", ""), ("same", ""), ("small", "cache: {max_entries: 2}\n")):
        suite_file.write_text(suite_file.read_text().partition("cache:")[0] + cache)
        result, trace = tmp_path / f"{name}.json", tmp_path / f"{name}.jsonl"
        assert invoke("run", suite_file, "--json", result, "--trace", trace).exit_code == 0
        files |= {f"{name} result": result, f"{name} trace": trace}
    assert len(loaded) == 3
    return files


@pytest.mark.parametrize("kind", ["result", "trace"])
def test_equal_runs_pass(invoke: Invoke, runs: Files, kind: str) -> None:
    """Two runs of one suite have the same lookups and forward passes."""
    ran = invoke("gate", runs[f"good {kind}"], runs[f"same {kind}"])
    assert ran.exit_code == 0
    assert "nothing is worse: " in ran.stdout
    assert "in all" in ran.stdout


@pytest.mark.parametrize("before", ["result", "trace"])
@pytest.mark.parametrize("now", ["result", "trace"])
def test_a_cache_that_is_too_small_fails(
    invoke: Invoke, runs: Files, before: str, now: str
) -> None:
    """Only the probe with more forward passes is printed, with its views."""
    ran = invoke("gate", runs[f"good {before}"], runs[f"small {now}"])
    assert ran.exit_code == 1
    worse = [line for line in ran.stdout.splitlines() if line.startswith("worse: ")]
    assert worse[:-1] == [
        f"worse: second on {view}: 2 forward passes, 1 before; no additional lookups; values "
        "that were no longer in the cache were computed again"
        for view in ("base", "ft")
    ]
    assert worse[-1].startswith("worse: the hit rate is ")
    assert "worse than the reference run: 3 of " in ran.stdout


def test_limits(invoke: Invoke, runs: Files) -> None:
    """More forward passes and a lower hit rate can be allowed, and a slowdown limited."""
    both = (runs["good result"], runs["small result"])
    loose = ("--max-more-passes", 1, "--max-hit-rate-drop", 0.5)
    assert invoke("gate", *both, *loose).exit_code == 0
    assert invoke("gate", *both, *loose, "--max-slowdown", 0).exit_code == 1


def test_output_formats(invoke: Invoke, runs: Files, tmp_path: Path) -> None:
    """JSON has all checks, Markdown the failed ones, and JUnit XML is written to a file."""
    both = (runs["good result"], runs["small result"])
    junit = tmp_path / "new" / "junit.xml"
    ran = invoke("gate", *both, "--format", "json", "--junit", junit)
    assert ran.exit_code == 1
    output: dict[str, Any] = json.loads(ran.stdout)
    assert output["ok"] is False
    assert all(check.keys() == {"name", "ok", "says"} for check in output["checks"])
    failed = [check["name"] for check in output["checks"] if not check["ok"]]
    assert failed == [
        "forward passes of second on base",
        "forward passes of second on ft",
        "hit rate",
    ]
    total = output["compared"][-1]
    assert total["forward_passes"] == total["baseline_forward_passes"] + 2
    text = invoke("gate", *both, "--format", "markdown").stdout
    assert text.startswith("## forwardscope gate: worse than the reference run: 3 of ")
    assert "\n| probe | view | lookups | passes | now | time | now |\n" in text
    assert 'failures="3"' in junit.read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty: "),
        ("name: x\n", "is not a trace: "),
        ('{"schema_version": 99}', "is not a result that this version supports: "),
        (
            '{"schema_version": 1}',
            "is not a result that this version supports: run_id: Field requi",
        ),
        ('{"schema_version": ', "is not a result that this version supports: Invalid JSON"),
    ],
)
def test_a_file_that_is_no_run(
    error_of: ErrorOf, runs: Files, tmp_path: Path, content: str, message: str
) -> None:
    """The error names the file, as reference run and as current run."""
    other = tmp_path / "other"
    other.write_text(content)
    for pair in ((runs["good result"], other), (other, runs["good result"])):
        assert error_of("gate", *pair).startswith(f"{other} {message}")


def test_files_that_cannot_be_read_or_written(
    error_of: ErrorOf, runs: Files, tmp_path: Path
) -> None:
    """The error names a missing run, and a JUnit file below a file."""
    good, missing = runs["good result"], tmp_path / "nope"
    error = error_of("gate", missing, good)
    assert error == f"{missing} cannot be read: No such file or directory"
    error = error_of("gate", good, runs["same result"], "--junit", good / "j.xml")
    assert "cannot be written" in error


def test_measurements(invoke: Invoke, runs: Files, tmp_path: Path) -> None:
    """What a probe measured is compared; a limit of one probe or of all allows more."""
    worse = tmp_path / "worse.json"
    record = json.loads(runs["good result"].read_text())
    record["probes"][0]["raw"] /= 2
    worse.write_text(json.dumps(record))
    ran = invoke("gate", runs["good result"], worse)
    assert ran.exit_code == 1
    assert ran.stdout.startswith("worse: first: value ")
    for allowed in ("0.6", "first=0.6"):
        assert invoke("gate", runs["good result"], worse, "--max-drop", allowed).exit_code == 0
    assert invoke("gate", runs["good result"], worse, "--max-drop", "second=0.6").exit_code == 1
    assert invoke("gate", worse, runs["good result"]).exit_code == 0


def test_smallest_score(invoke: Invoke, runs: Files) -> None:
    """The score of the suite has a limit."""
    both = (runs["good result"], runs["same result"])
    score = json.loads(invoke("gate", *both, "--format", "json").stdout)["score"]
    assert invoke("gate", *both, "--min-score", score).exit_code == 0
    broken = json.loads(runs["same result"].read_text())
    broken["probes"][0]["score"] = 0.5
    runs["same result"].write_text(json.dumps(broken))
    limits = ("--max-drop", 1)
    assert invoke("gate", *both, *limits, "--min-score", score / 2 + 0.2).exit_code == 0
    assert invoke("gate", *both, *limits, "--min-score", score / 2 + 0.3).exit_code == 1


@pytest.mark.parametrize("option", ["x=0.1", "much", "first=-1", "first=nan", "=0.1x", "inf"])
def test_a_drop_that_is_no_share(error_of: ErrorOf, runs: Files, option: str) -> None:
    """The error names the option."""
    both = (runs["good result"], runs["same result"])
    assert error_of("gate", *both, "--max-drop", option).startswith(f"--max-drop {option}: ")


def test_models_and_adapters_are_named(invoke: Invoke, runs: Files, tmp_path: Path) -> None:
    """Both runs are described, and what of model and adapter differs is said."""
    other = tmp_path / "other.json"
    record = json.loads(runs["good result"].read_text())
    other.write_text(json.dumps(record | {"adapter": "checkpoint-9"}))
    said = invoke("gate", runs["good result"], other).stdout
    assert "reference run: base some-model, fine-tuned some-adapter (ft); " in said
    assert "the runs differ in adapter: checkpoint-9, some-adapter before" in said
    found = json.loads(invoke("gate", runs["good result"], other, "--format", "json").stdout)
    assert found["differences"] == ["adapter: checkpoint-9, some-adapter before"]


def test_identities_that_differ_are_short(invoke: Invoke, runs: Files, tmp_path: Path) -> None:
    """Of the identities of two adapters the first digits are said, as the store lists them."""
    record = json.loads(runs["good result"].read_text())
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file, digit in zip(files, "ab", strict=True):
        file.write_text(json.dumps(record | {"tuned_identity": digit * 64}))
    said = invoke("gate", *files).stdout.splitlines()
    assert f"the runs differ in tuned identity: {'b' * 12}, {'a' * 12} before" in said


@pytest.mark.parametrize("option", ["--max-drop", "--min-score"])
def test_limits_of_measurements_need_results(error_of: ErrorOf, runs: Files, option: str) -> None:
    """With a trace they are an error, and not dropped."""
    both = (runs["good result"], runs["same trace"])
    message = error_of("gate", *both, option, "0.1")
    assert message.startswith(f"{option}: {runs['same trace']} is a trace")


def test_smallest_score_beside_a_trace(invoke: Invoke, runs: Files) -> None:
    """It needs the result of the current run alone."""
    both = (runs["good trace"], runs["same result"])
    assert invoke("gate", *both, "--min-score", 0.9).exit_code == 0
    assert "the suite's score" in invoke("gate", *both, "--min-score", 1, "--format", "json").stdout


def test_names_are_no_markup_in_markdown(invoke: Invoke, runs: Files, tmp_path: Path) -> None:
    """Neither the gate's Markdown nor that of a run has an element that a name brought."""
    hostile = tmp_path / "hostile.json"
    result = json.loads(runs["good result"].read_text())
    hostile.write_text(json.dumps(result | {"adapter": "<img src=x>", "model": "[a](b)"}))
    texts = (
        invoke("gate", runs["good result"], hostile, "--format", "markdown").stdout,
        result_markdown(SuiteResult.model_validate_json(hostile.read_text())),
    )
    for text in texts:
        assert text.count("<img") == text.count(r"\<img") > 0
        assert text.count("[a]") == text.count(r"\[a]") == 0
