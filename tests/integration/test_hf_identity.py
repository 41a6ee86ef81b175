"""The identity is a hash over all that shapes a value, and over nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from forwardscope.backends.hf import HFBackend, ModelSource, load_backend
from forwardscope.backends.hf.loading import quiet_transformers

Open = Callable[..., HFBackend]
Copy = Callable[[str], Path]


@pytest.fixture
def source(copy_of: Copy) -> ModelSource:
    """A model and an adapter of this test's own."""
    return ModelSource(str(copy_of("llama")), str(copy_of("llama_lora")))


def _identity(source: ModelSource, **options: Any) -> str:
    return load_backend(source, **options).identity()


def _memories(user_cache: Path) -> list[Path]:
    return sorted((user_cache / "identities").iterdir())


def _bump(path: Path) -> None:
    """Change the first weight of a file without changing its size."""
    tensors = load_file(path)
    tensors[min(tensors)].view(-1)[0] += 1.0
    path.unlink()  # safetensors before 0.8 writes over the memory that it loaded
    save_file(tensors, path, metadata={"format": "pt"})
    then = path.stat().st_mtime_ns + 1_000_000_000
    os.utime(path, ns=(then, then))  # two writes may fall into one tick of the clock


def test_is_a_sha256(source: ModelSource) -> None:
    """It is 64 hex digits, the same each time it is asked for."""
    backend = load_backend(source)
    assert len(backend.identity()) == 64
    assert int(backend.identity(), 16) > 0
    assert backend.identity() == backend.identity()


def test_is_the_same_in_every_folder(source: ModelSource, tmp_path: Path) -> None:
    """Neither another load nor another folder changes it, with or without a memory of it."""
    expected = _identity(source)
    assert _identity(source) == expected
    elsewhere = ModelSource(str(tmp_path / "a"), str(tmp_path / "b"))
    shutil.copytree(source.path, elsewhere.path)
    shutil.copytree(source.adapter, elsewhere.adapter)
    assert _identity(elsewhere) == expected
    shutil.rmtree(tmp_path / "user-cache")
    assert _identity(elsewhere) == expected


def test_is_the_same_in_memory(zoo: Any) -> None:
    """A backend made of a model in memory has the identity of one loaded from its folder."""
    in_memory = HFBackend(zoo.tuned("llama_lora"), zoo.tokenizer())
    assert in_memory.identity() == _identity(zoo.source("llama_lora"))


def test_differs_by_all_that_shapes_a_value(source: ModelSource, zoo: Any) -> None:
    """Adapter, base, exactness and dtype each make another identity."""
    identities = [
        _identity(source),
        _identity(source, exactness="strict"),
        _identity(ModelSource(source.path, source.adapter, dtype="bfloat16")),
        _identity(ModelSource(source.path, str(zoo.path("llama_other")))),
        _identity(ModelSource(source.path, str(zoo.path("llama_dora")))),
        _identity(zoo.source("gpt2_lora")),
    ]
    _bump(Path(source.path) / "model.safetensors")
    identities.append(_identity(source))
    assert len(set(identities)) == len(identities)


def test_differs_by_the_tokenizer(source: ModelSource) -> None:
    """A token of another text, and another pad token, make other identities."""
    path = Path(source.path) / "tokenizer.json"
    identities = [_identity(source)]
    path.write_text(path.read_text().replace("<eos>", "<end>"))
    config = path.with_name("tokenizer_config.json")
    config.write_text(config.read_text().replace("<eos>", "<end>"))
    identities.append(_identity(source))
    config.write_text(config.read_text().replace("<pad>", "<end>"))
    identities.append(_identity(source))
    assert len(set(identities)) == 3


def test_differs_by_the_settings_of_torch(source: ModelSource) -> None:
    """The attention implementation and the number of threads are part of it."""
    expected = _identity(source)
    config = Path(source.path) / "config.json"
    text = config.read_text()
    config.write_text(json.dumps({**json.loads(text), "attn_implementation": "eager"}))
    assert _identity(source) != expected
    config.write_text(text)
    assert _identity(source) == expected
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert _identity(source) != expected
    finally:
        torch.set_num_threads(threads)


def test_differs_by_rows_that_the_adapter_added(zoo: Any, tmp_path: Path) -> None:
    """A base that was resized for an adapter differs from one that has all its rows itself."""
    with quiet_transformers():
        base = zoo.base("llama")
        base.resize_token_embeddings(304)
        base.save_pretrained(tmp_path / "grown")
        zoo.tokenizer().save_pretrained(tmp_path / "grown")
        adapted = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj"]))
        adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    adapter = str(tmp_path / "adapter")
    grown = ModelSource(str(tmp_path / "grown"), adapter)
    assert _identity(grown) != _identity(ModelSource(str(zoo.path("llama")), adapter))


def test_ignores_padding_and_truncation(zoo: Any) -> None:
    """Settings that an earlier call left in the tokenizer, and no prompt is read with, are out."""
    tokenizer = zoo.tokenizer()
    expected = HFBackend(zoo.tuned("llama_lora"), tokenizer).identity()
    backend = HFBackend(zoo.tuned("llama_lora"), tokenizer)
    tokenizer(["the cat"], truncation=True, padding="max_length", max_length=4)
    assert backend.identity() == expected


def test_differs_by_the_adapters_scaling(source: ModelSource) -> None:
    """An adapter of the same weights that counts twice is another one."""
    expected = _identity(source)
    path = Path(source.adapter) / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "lora_alpha": 16}))
    assert _identity(source) != expected


def test_does_not_depend_on_where_the_base_came_from(source: ModelSource) -> None:
    """The name that an adapter has for its base shapes no value."""
    expected = _identity(source)
    path = Path(source.adapter) / "adapter_config.json"
    changed = {**json.loads(path.read_text()), "base_model_name_or_path": "someone/else"}
    path.write_text(json.dumps(changed))
    assert _identity(source) == expected


def test_views_do_not_change_it(zoo: Any) -> None:
    """It is the same after views, and inside those that leave the weights alone."""
    expected = _identity(zoo.source("llama_head"))
    for opened in ("as_base", "as_finetuned"):
        backend = HFBackend(zoo.tuned("llama_head"), zoo.tokenizer())
        with getattr(backend, opened)() as view:
            view.next_token_dist("the cat")
            assert backend.identity() == expected
    backend = HFBackend(zoo.tuned("llama_head"), zoo.tokenizer())
    with backend.as_null_adapter(1) as view:
        view.next_token_dist("the cat")
    assert backend.identity() == expected


def test_is_remembered(source: ModelSource, user_cache: Path) -> None:
    """What the weights hash to is remembered in the user's cache folder, and believed."""
    expected = _identity(source)
    memories = _memories(user_cache)
    for memory in memories:
        memory.write_text("0" * 64)
    assert _identity(source) != expected
    assert _memories(user_cache) == memories


@pytest.mark.parametrize("name", ["model.safetensors", "adapter_model.safetensors"])
def test_changed_file_is_hashed_anew(source: ModelSource, user_cache: Path, name: str) -> None:
    """A file of the same size with another content and time is not answered from memory."""
    expected = _identity(source)
    folder = source.path if name.startswith("model") else source.adapter
    size = (Path(folder) / name).stat().st_size
    _bump(Path(folder) / name)
    assert (Path(folder) / name).stat().st_size == size
    known = _memories(user_cache)
    assert _identity(source) != expected
    assert len(_memories(user_cache)) > len(known)


@pytest.mark.parametrize("in_place", [True, False])
def test_file_with_the_old_time_is_hashed_again(source: ModelSource, in_place: bool) -> None:
    """Another content with the old size and modification time is not taken for the old one."""
    expected = _identity(source)
    path = Path(source.path) / "model.safetensors"
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    if not in_place:
        path.unlink()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert _identity(source) != expected


def test_file_changed_after_loading(source: ModelSource) -> None:
    """A digest is saved for the file that was loaded, not for one that replaced it."""
    backend = load_backend(source)
    path = Path(source.path) / "model.safetensors"
    _bump(path)
    first = backend.identity()
    assert _identity(source) != first
    assert backend.identity() == first


def test_dtypes_are_remembered_apart(source: ModelSource, user_cache: Path) -> None:
    """The same files held in another dtype have a memory of their own."""
    half = ModelSource(source.path, source.adapter, dtype="float16")
    expected = _identity(source), _identity(half)
    assert len(_memories(user_cache)) == 4
    assert (_identity(source), _identity(half)) == expected


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"f" * 63, b"F" * 64, b"0" * 64 + b"\n"])
def test_corrupt_memory_is_done_without(
    source: ModelSource, user_cache: Path, content: bytes
) -> None:
    """A memory that is no digest is neither believed nor kept."""
    expected = _identity(source)
    good = {memory: memory.read_bytes() for memory in _memories(user_cache)}
    for memory in good:
        memory.write_bytes(content)
    assert _identity(source) == expected
    assert {memory: memory.read_bytes() for memory in _memories(user_cache)} == good


def test_memory_that_cannot_be_read_or_written(source: ModelSource, user_cache: Path) -> None:
    """Where the cache folder is a file, or an entry a folder, the identity is made all the same."""
    user_cache.parent.mkdir()
    user_cache.write_text("no folder")
    expected = _identity(source)
    user_cache.unlink()
    assert _identity(source) == expected
    for memory in _memories(user_cache):
        memory.unlink()
        memory.mkdir()
    assert _identity(source) == expected


def test_files_moved_away_after_loading(source: ModelSource) -> None:
    """A backend whose files are gone has the identity that it had."""
    backend = load_backend(source)
    expected = _identity(source)
    shutil.rmtree(source.adapter)
    assert backend.identity() == expected
