"""What a sweep measures, keeps and says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from forwardscope.errors import ModelError, StoreError, UserError
from forwardscope.probes import Verdict
from forwardscope.suite import SuiteResult, SuiteSpec
from forwardscope.sweep import (
    AdapterRow,
    Sweep,
    SweepInterrupted,
    SweepObserver,
    SweepResult,
    run_sweep,
)
from forwardscope.testing import InMemoryTelemetry

MakeAdapter = Callable[..., Path]
MakeSweep = Callable[..., Sweep]
MakeEngine = Callable[..., Any]


@pytest.fixture
def run(sweep_of: MakeSweep, engine_of: MakeEngine) -> Callable[..., SweepResult]:
    """Return a function that runs a sweep of adapters."""

    def run(*adapters: Path, **more: Any) -> SweepResult:
        sweep = sweep_of(*adapters, **more)
        return run_sweep(sweep, engine_of(sweep))

    return run


def test_base_and_null_passes_are_paid_once(
    run: Callable[..., SweepResult], make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    """The second adapter pays for its own view alone; the rest comes from the store."""
    first, second = run(make_adapter("a"), make_adapter("b", change=0.7)).rows
    assert first.passes.forward_passes == first.passes.demand == second.passes.demand
    paid = second.passes.forward_passes
    assert second.passes.by_tier["disk"] == second.passes.demand - paid
    result = SuiteResult.model_validate_json((tmp_path / "sweep/runs/b/result.json").read_bytes())
    own = [one.forward_passes for one in result.series if one.view_id == "ft"]
    assert sum(own) == paid > 0


def test_views_are_verified_once_a_worker(
    run: Callable[..., SweepResult], make_adapter: MakeAdapter, spec: SuiteSpec, tmp_path: Path
) -> None:
    """The second adapter verifies what the first one stored, and the third one nothing."""
    cache = spec.cache.model_copy(update={"verify": 1e-9})
    spec = spec.model_copy(update={"cache": cache})
    run(*(make_adapter(f"c-{n}", change=n / 4) for n in (1, 2, 3)), spec=spec)
    files = [tmp_path / f"sweep/runs/c-{n}/result.json" for n in (1, 2, 3)]
    used = [SuiteResult.model_validate_json(one.read_bytes()).store for one in files]
    assert [one and one.verified for one in used] == [0, 3, 0]  # base and two null views


def test_rows_are_in_order_with_changes_against_the_one_before(
    run: Callable[..., SweepResult], make_adapter: MakeAdapter
) -> None:
    """A change is the value less that of the adapter before, and all p are corrected together."""
    adapters = [make_adapter(f"step-{n}", change=0.3 * n) for n in (1, 2, 3)]
    result = run(*adapters)
    assert [row.label for row in result.rows] == ["step-1", "step-2", "step-3"]
    values = [row.probes[-1].raw for row in result.rows]
    changes = [row.probes[-1].change for row in result.rows]
    assert changes[0] is None
    assert changes[1:] == pytest.approx([b - a for a, b in pairwise(values)])
    assert [row.compared_with for row in result.rows] == [None, "step-1", "step-2"]
    tested = [cell.p for row in result.rows for cell in row.probes if cell.p is not None]
    assert result.comparisons.tested == len(tested) == 2
    assert result.comparisons.correction == "holm"


def test_broken_adapter_is_an_error_and_the_sweep_goes_on(
    run: Callable[..., SweepResult], make_adapter: MakeAdapter
) -> None:
    """Its row has the reason, and the next adapter is compared with the last that was measured."""
    result = run(
        make_adapter("a"), make_adapter("b", error="does not fit"), make_adapter("c", change=0.6)
    )
    good, broken, last = result.rows
    assert (broken.status, broken.error, broken.error_type) == (
        *("error", "does not fit"),
        "AdapterError",
    )
    assert (good.status, last.status, last.compared_with) == ("finished", "finished", "a")
    assert not result.passed
    assert "b: does not fit" in result.events


def test_error_of_a_library_is_named_without_its_message(
    run: Callable[..., SweepResult], make_adapter: MakeAdapter
) -> None:
    """A message may quote a prompt; the sweep goes on."""
    broken, good = run(make_adapter("a", bug="a secret question"), make_adapter("b")).rows
    assert (broken.status, broken.error_type, good.status) == ("error", "RuntimeError", "finished")
    assert "secret" not in (broken.error or "")


def test_adapter_that_gives_no_numbers_is_an_error_of_its_probes(
    run: Callable[..., SweepResult], make_adapter: MakeAdapter
) -> None:
    """Such an adapter has a result with an error, and is measured again the next time."""
    adapters = [make_adapter("a", nan=True), make_adapter("b")]
    broken, good = run(*adapters).rows
    assert [cell.verdict for cell in broken.probes] == [Verdict.ERROR]
    assert good.passed
    assert [row.status for row in run(*adapters).rows] == ["finished", "resumed"]


def test_finished_adapters_are_not_run_again(
    run: Callable[..., SweepResult], make_adapter: MakeAdapter, models: Any
) -> None:
    """The second sweep opens what is new or changed, and has the values of all."""
    kept, changed, new = (make_adapter(name, change=0.4) for name in ("a", "b", "c"))
    before = run(kept, changed)
    make_adapter("b", change=0.8)
    models.opened.clear()
    after = run(kept, changed, new)
    assert models.opened == ["b", "c"]
    assert [row.status for row in after.rows] == ["resumed", "finished", "finished"]
    assert after.rows[0].probes == before.rows[0].probes
    assert after.rows[0].run_id == before.rows[0].run_id
    assert after.passes == after.rows[1].passes + after.rows[2].passes


def test_fresh_sweep_runs_all_again(
    run: Callable[..., SweepResult], make_adapter: MakeAdapter, models: Any
) -> None:
    """With `fresh` no finished result is used."""
    adapters = make_adapter("a"), make_adapter("b", change=0.4)
    run(*adapters)
    run(*adapters, fresh=True)
    assert models.opened == ["a", "b", "a", "b"]


def test_fresh_sweep_of_a_missing_base_removes_only_the_first_result(
    run: Callable[..., SweepResult], make_adapter: MakeAdapter, models: Any, tmp_path: Path
) -> None:
    """An earlier result is there until its adapter's turn."""
    adapters = [make_adapter("a"), make_adapter("b", change=0.8)]
    run(*adapters)
    models.open = _missing_base
    with pytest.raises(ModelError):
        run(*adapters, fresh=True)
    assert [(tmp_path / f"sweep/runs/{name}/result.json").exists() for name in "ab"] == [0, 1]


def _missing_base(*_: Any) -> Any:
    raise ModelError("no such base")


def test_another_suite_runs_all_again(
    run: Callable[..., SweepResult], make_adapter: MakeAdapter, spec: SuiteSpec, models: Any
) -> None:
    """A setting that can change a value makes another key; where telemetry goes does not."""
    adapter = make_adapter("a")
    run(adapter)
    telemetry = spec.telemetry.model_copy(update={"span_budget": 3})
    run(adapter, spec=spec.model_copy(update={"telemetry": telemetry}))
    assert len(models.opened) == 1
    defaults = spec.defaults.model_copy(update={"seed": 3})
    run(adapter, spec=spec.model_copy(update={"defaults": defaults}))
    assert len(models.opened) == 2


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def _other_values(file: Path) -> None:
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "wall_s": 0.5}))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("result.json", _cut),
        ("result.json", _other_values),
        ("result.json", Path.unlink),
        ("key", Path.unlink),
        ("key", lambda file: file.write_bytes(b"\xff" * 4000)),
    ],
)
def test_result_that_is_not_whole_is_not_trusted(
    run: Callable[..., SweepResult],
    make_adapter: MakeAdapter,
    tmp_path: Path,
    models: Any,
    name: str,
    damage: Callable[[Path], object],
) -> None:
    """An adapter whose files are torn, changed, missing or foreign is measured again."""
    adapter = make_adapter("a")
    run(adapter)
    damage(tmp_path / "sweep" / "runs" / "a" / name)
    assert [row.status for row in run(adapter).rows] == ["finished"]
    assert models.opened == ["a", "a"]


def _rewrite(folder: Path, **changes: Any) -> None:
    """Change a finished result, and make its key right again."""
    result = json.loads((folder / "result.json").read_text())
    data = json.dumps({**result, **changes}).encode()
    (folder / "result.json").write_bytes(data)
    key = (folder / "key").read_text().split()[0]
    (folder / "key").write_text(f"{key} {blake2b(data, digest_size=32).hexdigest()}\n")


def test_result_with_impossible_counts_is_not_trusted(
    run: Callable[..., SweepResult], make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    """A foreign result whose key is right, but which no run can have, is measured again."""
    adapter, folder = make_adapter("a"), tmp_path / "sweep" / "runs" / "a"
    run(adapter)
    stats = json.loads((folder / "result.json").read_text())["backend_stats"]
    _rewrite(folder, backend_stats={**stats, "cache_hits": 2**62, "cache_misses": 2**62})
    assert [row.status for row in run(adapter).rows] == ["finished"]


def test_results_of_unlike_devices_are_named(
    run: Callable[..., SweepResult], make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    """A kept result of another device or dtype is compared, with a word about it."""
    adapters, folder = [make_adapter("a"), make_adapter("b")], tmp_path / "sweep" / "runs" / "a"
    assert run(*adapters).events == []
    _rewrite(folder, device="cuda:0", dtype="bfloat16")
    (event,) = run(*adapters).events
    assert "unlike ways" in event
    assert "a in bfloat16 on cuda; b in " in event


def test_report_of_an_earlier_run_is_removed(
    run: Callable[..., SweepResult], make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    """An adapter that is measured again, and cannot be, has no report of before."""
    run(make_adapter("a"))
    report = tmp_path / "sweep" / "runs" / "a" / "report.html"
    report.write_text("of the adapter before")
    assert run(make_adapter("a", error="no adapter")).rows[0].status == "error"
    assert not report.exists()


def test_folder_in_place_of_a_result(
    run: Callable[..., SweepResult], make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    """What cannot be replaced ends the sweep with one sentence."""
    (tmp_path / "sweep" / "runs" / "a" / "result.json").mkdir(parents=True)
    with pytest.raises(UserError, match="cannot be written"):
        run(make_adapter("a"))


def test_store_that_is_gone_costs_no_adapter(
    run: Callable[..., SweepResult], make_adapter: MakeAdapter, models: Any, tmp_path: Path
) -> None:
    """An adapter after the loss pays for all, and a note says so; at the start it is a mistake."""
    place = tmp_path / "store.db"

    def lose() -> None:
        if place.is_file() and models.opened == ["a"]:
            place.unlink()
            place.mkdir()

    models.before = lose
    first, second = run(make_adapter("a"), make_adapter("b", change=0.9)).rows
    assert second.passed
    assert second.passes.forward_passes == second.passes.demand == first.passes.demand
    [note] = second.notes
    assert "without the store" in note
    with pytest.raises(UserError, match=r"store\.db"):
        run(make_adapter("c"))


def test_store_of_a_server_is_named_without_its_password(
    run: Callable[..., SweepResult], make_adapter: MakeAdapter, spec: SuiteSpec
) -> None:
    """A result names the server, also where no adapter had to be measured."""
    adapter = make_adapter("a")
    run(adapter)
    result = run(adapter, spec=_with_store(spec, "redis://me:hidden@127.0.0.1:1/0?ttl=7d"))
    assert (result.rows[0].status, result.store) == ("resumed", "redis://me@127.0.0.1:1/0")


def test_mistake_in_the_url_of_a_store(
    run: Callable[..., SweepResult], make_adapter: MakeAdapter, spec: SuiteSpec, models: Any
) -> None:
    """A URL that cannot be read ends the sweep before a model is loaded, and is not shown."""
    with pytest.raises(StoreError, match="number of a database") as raised:
        run(make_adapter("a"), spec=_with_store(spec, "redis://:hid@den/secret@127.0.0.1"))
    assert "den" not in str(raised.value)
    assert models.opened == []


def _with_store(spec: SuiteSpec, store: str) -> SuiteSpec:
    return spec.model_copy(update={"cache": spec.cache.model_copy(update={"store": store})})


def test_stop_keeps_what_has_ended(
    sweep_of: MakeSweep, engine_of: MakeEngine, make_adapter: MakeAdapter, models: Any
) -> None:
    """A stop comes before the next forward pass; the next sweep goes on from there."""
    sweep = sweep_of(make_adapter("a"), make_adapter("b", change=0.8))
    engine = engine_of(sweep)
    models.before = lambda: len(models.opened) == 2 and engine.request_stop()
    with pytest.raises(SweepInterrupted) as raised:
        run_sweep(sweep, engine)
    result = raised.value.result
    assert [row.label for row in result.rows] == ["a"]
    assert result.not_run == ["b"]
    models.before = lambda: None
    again = run_sweep(sweep, engine_of(sweep))
    assert [row.status for row in again.rows] == ["resumed", "finished"]


def test_stop_between_adapters(
    sweep_of: MakeSweep, engine_of: MakeEngine, make_adapter: MakeAdapter, models: Any
) -> None:
    """No other adapter is loaded, and its earlier result stays."""
    sweep = sweep_of(make_adapter("a"), make_adapter("b", change=0.8))
    run_sweep(sweep, engine_of(sweep))
    engine = engine_of(sweep)

    class Stopping(SweepObserver):
        def adapter_finished(self, row: AdapterRow) -> None:
            engine.request_stop()

    opened = len(models.opened)
    with pytest.raises(SweepInterrupted) as raised:
        run_sweep(replace(sweep, fresh=True), engine, observer=Stopping())
    assert raised.value.result.not_run == ["b"]
    assert len(models.opened) == opened + 1
    assert sweep.folder.finished(sweep.tasks[1]) is not None


def test_trace_has_the_run_of_its_result_alone(
    run: Callable[..., SweepResult], make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    """A later run of an adapter replaces the trace of the one before."""
    adapter = make_adapter("a")
    run(adapter)
    [row] = run(adapter, fresh=True).rows
    lines = (tmp_path / "sweep" / row.folder / "trace.jsonl").read_text().splitlines()
    assert {json.loads(line)["run_id"] for line in lines} == {row.run_id}
    assert len(lines) == row.passes.lookups


def test_all_runs_are_in_one_trace(
    sweep_of: MakeSweep, engine_of: MakeEngine, make_adapter: MakeAdapter
) -> None:
    """The span of the sweep is the parent of each suite's, and has what became of the adapters."""
    telemetry = InMemoryTelemetry()
    sweep = sweep_of(make_adapter("a"), make_adapter("b", error="broken"))
    engine = engine_of(sweep, tracer_provider=telemetry.tracer_provider)
    result = run_sweep(sweep, engine, tracer_provider=telemetry.tracer_provider)
    [root] = [span for span in telemetry.spans() if span.parent is None]
    suites = [span for span in telemetry.spans() if span.name.startswith("suite ")]
    assert root.name == "sweep tested"
    assert [suite.parent for suite in suites] == [root.id]
    assert root.attributes["forwardscope.sweep.adapters"] == 2
    assert root.attributes["forwardscope.sweep.errors"] == 1
    assert root.attributes["error.type"] == "AdapterError"
    assert result.trace_id is not None


def test_events_of_a_sweep(
    sweep_of: MakeSweep, engine_of: MakeEngine, make_adapter: MakeAdapter
) -> None:
    """An observer receives the start, each adapter and the end."""
    events: list[str] = []

    class Seen(SweepObserver):
        def sweep_started(self, sweep: Any) -> None:
            events.append(f"sweep of {len(sweep.tasks)}")

        def adapter_started(self, task: Any, worker: str) -> None:
            events.append(f"start {task.label}")

        def adapter_finished(self, row: Any) -> None:
            events.append(f"{row.status} {row.label}")

        def sweep_finished(self, result: SweepResult | None) -> None:
            events.append("end" if result else "aborted")

    sweep = sweep_of(make_adapter("a"), make_adapter("b", error="broken"))
    run_sweep(sweep, engine_of(sweep), observer=Seen())
    assert events == ["sweep of 2", "start a", "finished a", "start b", "error b", "end"]


def test_result_is_read_back(
    run: Callable[..., SweepResult], make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    """The file has the whole result."""
    result = run(make_adapter("a"), make_adapter("b", change=0.9))
    result.write(tmp_path / "sweep.json")
    assert SweepResult.model_validate_json((tmp_path / "sweep.json").read_bytes()) == result
