"""Why a store did not answer: the parts of a real model's identity that differ."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from forwardscope import BackendInstrumentation, TraceEvent, TraceReader
from forwardscope.analysis.stored import StoreSearch
from forwardscope.backends.hf import ModelSource, load_backend
from forwardscope.backends.hf.view_identity import identity_of
from forwardscope.cli.app import app
from forwardscope.store.base import NewEntry
from forwardscope.store.keys import question_digest
from forwardscope.store.sqlite import SqliteStore

Run = Callable[..., TraceEvent]

PROMPT = "the cat sat on the mat"
BASE, ADAPTER = "model.safetensors", "adapter_model.safetensors"
SUITE = """version: 1
model: {path: ./llama, adapter: ./adapter}
probes: [{name: change, kind: delta_kl, prompts: [the cat sat], min_mean: 0.000001}]
"""


@pytest.fixture
def source(copy_of: Callable[[str], Path]) -> ModelSource:
    return ModelSource(str(copy_of("llama")), str(copy_of("llama_lora")))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "store.db")
    yield opened
    opened.close()


@pytest.fixture
def run(store: SqliteStore, tmp_path: Path) -> Run:
    """Load a model, compute one value in a view, and return the record of its lookup."""
    numbers = iter(range(100))

    def call(source: ModelSource, view: str = "ft", **options: Any) -> TraceEvent:
        number = next(numbers)
        path = tmp_path / f"{number}.jsonl"
        instrumentation = BackendInstrumentation(store=store, trace_path=path)
        instrumentation.set_run_id(f"run {number}")
        backend = load_backend(source, instrumentation=instrumentation, **options)
        with backend.as_base() if view == "base" else backend.as_finetuned() as opened:
            opened.next_token_dist(PROMPT, top_k=8)
        backend.close()
        (event,) = TraceReader(path)
        return event

    return call


def _differing(store: SqliteStore, miss: TraceEvent) -> set[str]:
    """The names of the parts that differ from the one value that another run stored."""
    assert not miss.hit
    (other,) = StoreSearch(store).find(miss).others
    assert other.differences is not None
    return {one.part for one in other.differences}


def _edit(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def _flip(path: Path) -> None:
    """Change one bit of a weight."""
    tensors = load_file(path)
    tensors[min(tensors)].view(torch.int32).view(-1)[0] ^= 1
    path.unlink()  # safetensors before 0.8 writes over the memory that it loaded
    save_file(tensors, path, metadata={"format": "pt"})


def test_an_adapter_that_was_trained_again(
    run: Run, store: SqliteStore, source: ModelSource, zoo: Any
) -> None:
    """Its weights are named, and the base's values are found."""
    run(source), run(source, "base")
    shutil.copy(zoo.path("llama_other") / ADAPTER, Path(source.adapter or "") / ADAPTER)
    assert _differing(store, run(source)) == {"adapter weights"}
    found = run(source, "base")
    assert (found.tier, found.pass_run_id) == ("disk", "run 1")


def test_one_bit_of_the_base(run: Run, store: SqliteStore, source: ModelSource) -> None:
    """The model's weights are named, for the base and for the tuned view."""
    run(source), run(source, "base")
    _flip(Path(source.path) / BASE)
    assert _differing(store, run(source)) == {"model weights"}
    assert _differing(store, run(source, "base")) == {"model weights"}


def test_another_dtype(run: Run, store: SqliteStore, source: ModelSource) -> None:
    """The dtype is named, with weights and config, which have it too."""
    run(source, "base")
    half = ModelSource(source.path, source.adapter, dtype="bfloat16")
    assert _differing(store, run(half, "base")) == {"dtype", "model weights", "model config"}


def test_another_exactness(run: Run, store: SqliteStore, source: ModelSource) -> None:
    """It is named alone."""
    run(source)
    assert _differing(store, run(source, exactness="strict")) == {"exactness"}


def test_another_attention(run: Run, store: SqliteStore, source: ModelSource) -> None:
    """The implementation of attention is named, with the config that selects it."""
    run(source)
    _edit(Path(source.path) / "config.json", attn_implementation="eager")
    assert _differing(store, run(source)) == {"attention implementation"}


def test_another_tokenizer(run: Run, store: SqliteStore, source: ModelSource) -> None:
    """Another text of a token is another tokenizer."""
    run(source)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = Path(source.path) / name
        path.write_text(path.read_text().replace("<eos>", "<end>"))
    assert _differing(store, run(source)) == {"tokenizer"}


def test_another_torch(run: Run, store: SqliteStore, source: ModelSource) -> None:
    """The value of another build of torch, of whose description only the beginning is kept."""
    parts = {**load_backend(source).view_identity_parts("ft"), "torch build": f"1.13{' x' * 900}"}
    identity, question = identity_of(parts), question_digest("next_token_dist", PROMPT, 8)
    store.put_many([NewEntry(b"1" * 32, question, identity, 1.0, "older")])
    miss = run(source)
    described = store.identities()[miss.view_identity or ""]
    store.describe_identity(
        identity,
        {**described.parts, "torch build": "1.13"},
        model="m",
        adapter="a",
        view_family="ft",
    )
    assert store.flush(30)
    assert _differing(store, miss) == {"torch build"}
    assert described.parts["torch build"].startswith(torch.__version__)
    assert all(len(part) <= 100 for part in described.parts.values())


def test_another_folder(run: Run, source: ModelSource, tmp_path: Path) -> None:
    """The same weights in another place are found."""
    run(source)
    moved = ModelSource(str(tmp_path / "a"), str(tmp_path / "b"))
    shutil.copytree(source.path, moved.path)
    shutil.copytree(source.adapter, moved.adapter)
    assert run(moved).tier == "disk"


def test_descriptions_have_no_paths_and_no_prompts(
    run: Run, store: SqliteStore, source: ModelSource, tmp_path: Path
) -> None:
    """Parts are digests and short texts; model and adapter have the names they were given."""
    run(source), run(source, "base")
    for info in store.identities().values():
        assert (info.model, info.adapter) in {
            (source.path, source.adapter if info.view_family == "ft" else None)
        }
        text = str(info.parts)
        assert str(tmp_path) not in text
        assert PROMPT not in text


def test_on_the_command_line(
    zoo: Any, tmp_path: Path, user_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`trace why` names the adapter's weights; `--rehash` finds what a wrong digest hides."""
    monkeypatch.setenv("COLUMNS", "400")
    shutil.copytree(zoo.path("llama"), tmp_path / "llama")
    shutil.copytree(zoo.path("llama_lora"), tmp_path / "adapter")
    suite = tmp_path / "suite.yaml"
    suite.write_text(SUITE)

    def call(*arguments: object) -> str:
        ran = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
        assert ran.exit_code == 0, ran.output
        return ran.stdout

    def trace_of(name: str, *options: str) -> Path:
        trace, store = tmp_path / name, tmp_path / "store.db"
        call("run", suite, "--quiet", "--store", store, "--trace", trace, *options)
        return trace

    def misses(trace: Path) -> int:
        return sum(not one.hit for one in TraceReader(trace))

    assert misses(trace_of("first.jsonl")) == 4
    for memory in (user_cache / "identities").iterdir():
        memory.write_text("0" * 64)
    assert misses(trace_of("rehashed.jsonl", "--rehash")) == 0
    shutil.copy(zoo.path("llama_other") / ADAPTER, tmp_path / "adapter" / ADAPTER)
    trace = trace_of("retrained.jsonl")
    assert misses(trace) == 2
    text = call("trace", "why", trace, "--miss", 2, "--store", tmp_path / "store.db")
    assert "change on ft, prompt" in text
    assert "(./adapter on ./llama, last used " in text
    assert text.rstrip().endswith(" stored it with other adapter weights")
