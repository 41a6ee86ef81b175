"""A result is JSON without prompts, and is written atomically."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from forwardscope.errors import OutputError
from forwardscope.probes import DeltaKL, Verdict
from forwardscope.suite import SuiteResult, SuiteSpec, run_suite
from forwardscope.suite.spec import CacheSpec
from forwardscope.testing import ScriptedBackend

MakeSpec = Callable[..., SuiteSpec]


@pytest.fixture
def result(full_suite: SuiteSpec) -> SuiteResult:
    return run_suite(full_suite, ScriptedBackend())


def reject_constant(name: str) -> None:
    """Raise an error for NaN and infinity, which JSON does not have."""
    raise ValueError(f"{name} is not JSON")


def test_a_written_result_can_be_read(result: SuiteResult, tmp_path: Path) -> None:
    """The file has an equal result, with the format version as its first key."""
    result.write(tmp_path / "r.json")
    text = (tmp_path / "r.json").read_text()
    assert SuiteResult.model_validate_json(text) == result
    record = json.loads(text, parse_constant=reject_constant)
    assert next(iter(record.items())) == ("schema_version", 2)
    assert text.endswith("}\n")


def test_keys_of_a_result(result: SuiteResult) -> None:
    """The JSON has the documented keys."""
    record = json.loads(result.model_dump_json())
    assert set(record) >= {"run_id", "suite", "model", "adapter", "identity", "versions", "seed"}
    probe_keys = (
        "name kind verdict error_type score raw z_score ci_95 n message evidence duration_s stats"
        " lower_is_better weight"
    )
    assert [set(probe) for probe in record["probes"]] == [set(probe_keys.split())] * 4
    assert list(record["backend_stats"]) == [
        "cache_hits",
        "cache_misses",
        "forward_passes",
        "scoring_wall_s",
        "batches_sent",
        "batched_prompts",
        "max_batch_size",
        "hit_rate",
        "avg_batch_size",
    ]
    assert [probe["verdict"] for probe in record["probes"]] == [
        str(probe.verdict) for probe in result.probes
    ]


def test_a_result_of_the_first_version(result: SuiteResult) -> None:
    """It is read, without the keys that it does not have."""
    record = json.loads(result.model_dump_json())
    del record["not_run"]
    for probe in record["probes"]:
        del probe["n"]
    read = SuiteResult.model_validate({**record, "schema_version": 1})
    assert (read.schema_version, read.not_run, read.probes[0].n) == (1, [], None)


def test_records(result: SuiteResult) -> None:
    """Each probe is a flat record of plain values, with what tells runs apart."""
    records = result.to_records()
    assert [record["name"] for record in records] == [probe.name for probe in result.probes]
    by_name = {record["name"]: record for record in records}
    probe = next(probe for probe in result.probes if probe.ci_95 is not None)
    record = by_name[probe.name]
    assert (record["ci_low"], record["ci_high"]) == probe.ci_95
    assert (record["raw"], record["n"], record["verdict"]) == (probe.raw, probe.n, probe.verdict)
    assert (record["run_id"], record["adapter"]) == (result.run_id, result.adapter)
    assert record["forward_passes"] == probe.stats.forward_passes
    kinds = (str, int, float, type(None))
    assert all(isinstance(value, kinds) for record in records for value in record.values())
    assert len({tuple(record) for record in records}) == 1


def test_another_version_is_an_error(result: SuiteResult) -> None:
    """A later format version and unknown keys are errors."""
    record = json.loads(result.model_dump_json())
    with pytest.raises(ValidationError, match="schema_version"):
        SuiteResult.model_validate({**record, "schema_version": 3})
    with pytest.raises(ValidationError, match="more"):
        SuiteResult.model_validate({**record, "more": 1})


def test_a_result_without_a_plan_is_valid(result: SuiteResult) -> None:
    """In results of older versions the expected forward passes are missing."""
    record = json.loads(result.model_dump_json())
    assert record.pop("expected_forward_passes") == result.backend_stats["forward_passes"]
    assert SuiteResult.model_validate(record).expected_forward_passes is None


def test_a_result_has_no_prompts(result: SuiteResult) -> None:
    """The JSON contains no text of prompts or sentinels."""
    assert "secret" not in result.model_dump_json()


def test_errors_have_no_prompts(make_spec: MakeSpec) -> None:
    """The message of a failed probe does not contain the prompt."""
    probe = DeltaKL(name="long", prompts=["a secret that is too long"])
    result = run_suite(make_spec(probe), ScriptedBackend(context=10))
    assert result.probes[0].verdict is Verdict.ERROR
    assert "25 tokens" in result.probes[0].message
    assert "secret" not in result.model_dump_json()


def test_write_creates_folders_and_replaces_a_file(result: SuiteResult, tmp_path: Path) -> None:
    """The folder has only the new result, which is readable by all."""
    path = tmp_path / "new" / "folder" / "r.json"
    result.write(str(path))
    result.model_copy(update={"suite": "second"}).write(path)
    assert SuiteResult.model_validate_json(path.read_text()).suite == "second"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("step", "error", "raised"),
    [
        ("chmod", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OutputError),
        ("replace", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OutputError),
        ("replace", KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=["full disk at chmod", "full disk at replace", "interrupt"],
)
def test_a_failed_write_leaves_the_old_file(
    result: SuiteResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: BaseException,
    raised: type[BaseException],
) -> None:
    """The old file is unchanged, and no temporary file is left."""

    def failing(*_: object) -> None:
        raise error

    path = tmp_path / "r.json"
    path.write_text("old")
    monkeypatch.setattr(Path, step, failing)
    with pytest.raises(raised, match=r"r\.json: .*No space left|^$"):
        result.write(path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_paths_that_cannot_be_written(result: SuiteResult, tmp_path: Path) -> None:
    """A folder, a path through a file and a full device are errors with the path."""
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "r.json", Path("/dev/full")):
        with pytest.raises(OutputError, match=f"the result cannot be written to {path}: "):
            result.write(path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_pipe_is_not_replaced(result: SuiteResult, tmp_path: Path) -> None:
    """The JSON is written into the pipe, which stays a pipe."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        result.write(pipe)
        assert SuiteResult.model_validate_json(os.read(reader, 1 << 16)) == result
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_a_path_that_is_not_utf8(make_spec: MakeSpec) -> None:
    """The JSON has the model path with escaped bytes."""
    spec = make_spec(DeltaKL(name="one", prompts=["a"]), cache=CacheSpec())
    model = spec.model.model_copy(update={"path": "/models/\udcff"})
    result = run_suite(spec.model_copy(update={"model": model}), ScriptedBackend())
    assert json.loads(result.model_dump_json())["model"] == r"/models/\udcff"
