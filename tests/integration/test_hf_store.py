"""Suites that share a store: which forward passes a run still pays."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from forwardscope import BackendInstrumentation, TraceReader
from forwardscope.backends.hf import HFBackend, ModelSource, load_backend
from forwardscope.backends.hf.loading import quiet_transformers
from forwardscope.backends.hf.view_identity import identity_of
from forwardscope.core.series import Counts
from forwardscope.store.sqlite import SqliteStore
from forwardscope.suite import SuiteResult, SuiteSpec, run_suite
from forwardscope.suite.report import print_report
from forwardscope.testing import MemoryStore

Copy = Callable[[str], Path]

PROMPTS = ["the cat sat on the mat", "hello there world", "the other cats"]
FAMILIES = {"base", "ft", "scaled", "null"}
SPEC = SuiteSpec.model_validate(
    {
        "version": 1,
        "model": {"path": "some-model", "adapter": "some-adapter"},
        "probes": [
            {
                "name": "baseline",
                "kind": "null_adapter",
                "runs": 2,
                "sentinel_prompts": [*PROMPTS[:2], "x"],
            },
            {"name": "change", "kind": "delta_kl", "prompts": PROMPTS},
            {"name": "response", "kind": "adapter_ablation", "prompts": PROMPTS},
            {
                "name": "long-context",
                "kind": "prompt_collapse",
                "prompts": PROMPTS,
                "context_lengths": [0, 8, 16],
            },
        ],
    }
)


@pytest.fixture
def source(copy_of: Copy) -> ModelSource:
    """A model and an adapter of this test's own."""
    return ModelSource(str(copy_of("llama")), str(copy_of("llama_lora")))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of the store that all runs of a test share."""
    return tmp_path / "store.db"


def _run(source: ModelSource, path: Path, exactness: Any = "fast", **settings: Any) -> SuiteResult:
    """Run the suite as a process of its own would, with a store and without verification."""
    with closing(SqliteStore(path)) as store:
        instrumentation = BackendInstrumentation(store=store, **settings)
        backend = load_backend(source, exactness=exactness, instrumentation=instrumentation)
        with closing(backend):
            return run_suite(SPEC, backend)


def _by_family(result: SuiteResult, what: str) -> Counter[str]:
    """Return a count of a run by view family, without families that have none."""
    found: Counter[str] = Counter()
    for one in result.series:
        found[one.view_id.partition("_")[0]] += getattr(one, what)
    return +found


def _needed(first: SuiteResult, *families: str) -> Counter[str]:
    """Return the passes that a run paid for some families of views."""
    paid = _by_family(first, "forward_passes")
    return Counter({family: paid[family] for family in families})


def _train(source: ModelSource, seed: int, rank: int = 4) -> None:
    """Train an adapter for some steps, and save it in the place of the source's."""
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(source.path)
        tokenizer = AutoTokenizer.from_pretrained(source.path)
        targets = ["q_proj", "v_proj"]
        config = LoraConfig(r=rank, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM")
        model = get_peft_model(base, config).train()
        ids = torch.tensor([tokenizer(" ".join(PROMPTS))["input_ids"]])
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
        for _ in range(3):
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        shutil.rmtree(str(source.adapter))
        model.save_pretrained(source.adapter)


def _flip(folder: str | None, name: str) -> None:
    """Change one bit of a weight in a file, whose modification time stays."""
    path = Path(folder or "") / name
    then = path.stat().st_mtime_ns
    tensors = load_file(path)
    tensors[min(tensors)].view(torch.int32).view(-1)[0] ^= 1
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})
    os.utime(path, ns=(then, then))


def _edit(path: Path, edit: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_a_second_run_pays_for_verification_alone(
    source: ModelSource, path: Path, tmp_path: Path
) -> None:
    """Ledger, trace, result and report tell the same of it, and its scores are the first's."""
    first = _run(source, path)
    trace = tmp_path / "trace.jsonl"
    with closing(SqliteStore(path)) as store:
        backend = load_backend(
            source,
            instrumentation=BackendInstrumentation(store=store, verify=1 / 64, trace_path=trace),
        )
        with closing(backend):
            second = run_suite(SPEC, backend)
            ledger = sum(backend.instrumentation.ledger.snapshot().series.values(), Counts())
    assert (ledger.forward_passes, ledger.mismatches) == (0, 0)
    assert ledger.disk_hits == ledger.demand == first.backend_stats["forward_passes"]
    views = {one.view_id for one in second.series}
    assert len(views) <= ledger.matches < ledger.disk_hits

    events = list(TraceReader(trace))
    tiers = Counter((event.hit, event.tier) for event in events)
    assert tiers == {(True, "disk"): ledger.disk_hits, (True, None): len(events) - ledger.disk_hits}
    assert sum(event.verified is True for event in events) == ledger.matches

    assert second.store is not None
    assert (second.store.hits, second.store.verified) == (ledger.disk_hits, ledger.matches)
    assert sum(one.store_hits for one in second.series) == ledger.disk_hits
    assert sum(one.lookups for one in second.series) == len(events) == ledger.lookups
    assert second.backend_stats["cache_hits"] == ledger.hits + ledger.coalesced
    assert second.reconciliation.holds

    console = Console(record=True, width=200, file=StringIO())
    print_report(second, console)
    lines = console.export_text().splitlines()
    said = f"store: {ledger.disk_hits} of {ledger.demand} forward passes answered from disk "
    said += f"({path}), {ledger.matches} verified"
    assert said in [line.strip() for line in lines]
    assert any(f"cache: {len(events)} of {len(events)} lookups" in line for line in lines)

    one, other = ([(of.score, of.raw) for of in run.probes] for run in (first, second))
    assert one == other


@pytest.mark.parametrize(
    ("rank", "paid"), [(4, ["ft", "scaled"]), (8, ["ft", "scaled", "null"])], ids=["same", "other"]
)
def test_another_adapter_on_the_base(
    source: ModelSource, path: Path, rank: int, paid: list[str]
) -> None:
    """It pays for the views that compute with it; for null views where its shape is another.

    That holds also where it was trained in the place of the first, under its name.
    """
    first = _run(source, path)
    assert _by_family(first, "forward_passes").keys() == FAMILIES
    _train(source, 3, rank)
    second = _run(source, path)
    assert _by_family(second, "forward_passes") == _needed(first, *paid)
    assert _by_family(second, "store_hits") == _needed(first, *FAMILIES.difference(paid))
    _train(source, 4, rank)
    third = _run(source, path)
    assert _by_family(third, "forward_passes") == _needed(first, "ft", "scaled")


@pytest.mark.parametrize("part", ["base", "adapter"])
def test_one_bit_of_a_weight(source: ModelSource, path: Path, part: str) -> None:
    """A bit of a base's weight costs all views their values, one of an adapter's those with it."""
    first = _run(source, path)
    if part == "base":
        _flip(source.path, "model.safetensors")
    else:
        _flip(source.adapter, "adapter_model.safetensors")
    paid = _by_family(_run(source, path), "forward_passes")
    assert paid == _needed(first, *(FAMILIES if part == "base" else ("ft", "scaled")))


def test_strict_and_fast_share_nothing(source: ModelSource, path: Path) -> None:
    """Neither finds the values of the other, and each its own, with a store for both."""
    runs = [_run(source, path, exactness) for exactness in ("fast", "strict") * 2]
    hits = [run.store.hits if run.store else None for run in runs]
    assert hits == [0, 0, *(run.backend_stats["forward_passes"] for run in runs[:2])]


@pytest.mark.parametrize("what", ["dtype", "attention", "tokenizer", "torch", "threads"])
def test_what_computes_the_values(
    source: ModelSource, path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is another, nothing is found."""
    first = _run(source, path)
    model, settings = Path(source.path), {}
    if what == "dtype":
        source = ModelSource(source.path, source.adapter, dtype="bfloat16")
    elif what == "attention":
        _edit(model / "config.json", lambda config: config.update(attn_implementation="eager"))
    elif what == "tokenizer":
        _edit(
            model / "tokenizer.json",
            lambda rules: rules["pre_tokenizer"].update(use_regex=False),
        )
    elif what == "torch":  # its version is read once a process
        parts = load_backend(source).view_identity_parts
        settings["view_identity"] = lambda view: identity_of({**parts(view), what: "2.99.0"})
    else:
        monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    second = _run(source, path, **settings)
    assert second.store is not None
    assert second.store.hits == 0
    assert second.backend_stats["forward_passes"] == first.backend_stats["forward_passes"]


def test_the_same_weights_in_another_folder(
    source: ModelSource, path: Path, tmp_path: Path
) -> None:
    """All values are found, whatever the folders are named."""
    first = _run(source, path)
    moved = ModelSource(str(tmp_path / "a"), str(tmp_path / "b"))
    shutil.copytree(source.path, moved.path)
    shutil.copytree(str(source.adapter), str(moved.adapter))
    shutil.rmtree(source.path)
    second = _run(moved, path)
    assert second.backend_stats["forward_passes"] == 0
    assert _by_family(second, "store_hits") == _needed(first, *FAMILIES)


def test_a_quantised_base_that_changes_its_state(zoo: Any) -> None:
    """What its first pass does to its weights leaves its values findable in the next run."""
    model = zoo.tuned("llama_lora")
    model.config.quantization_config = {"quant_method": "test"}
    norm = model.get_base_model().model.norm

    def repack(*_: object) -> None:
        norm.weight.data.mul_(2)
        hook.remove()

    hook = norm.register_forward_pre_hook(repack)
    instrumentation = BackendInstrumentation(store=MemoryStore())
    backend = HFBackend(model, zoo.tokenizer(), instrumentation=instrumentation)
    for run in ("one", "two"):
        instrumentation.set_run_id(run)
        instrumentation.cache.clear()
        with backend.as_base() as view:
            view.next_token_dist_batch(PROMPTS)
    counts = sum(instrumentation.ledger.snapshot().series.values(), Counts())
    assert (counts.forward_passes, counts.disk_hits) == (len(PROMPTS), len(PROMPTS))
