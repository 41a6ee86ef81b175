"""Views of an equal identity have equal values, and views that differ in values differ in it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from forwardscope.backends.hf import HFBackend, ModelSource, load_backend
from forwardscope.backends.hf.loading import quiet_transformers
from forwardscope.backends.hf.origin import Origin
from forwardscope.backends.hf.remembered import sign
from forwardscope.backends.hf.view_identity import identity_of

Copy = Callable[[str], Path]

PROMPT = "the cat sat on the mat"
VIEWS = ("base", "ft", "scaled_2.0", "null_1")
BASE, ADAPTER = "model.safetensors", "adapter_model.safetensors"


@pytest.fixture
def source(copy_of: Copy) -> ModelSource:
    """A model and an adapter of this test's own."""
    return ModelSource(str(copy_of("llama")), str(copy_of("llama_lora")))


def _identities(source: ModelSource, **options: Any) -> dict[str, str | None]:
    backend = load_backend(source, **options)
    return {view: backend.view_identity(view) for view in VIEWS}


def _parts(source: ModelSource, view: str = "base", **options: Any) -> Mapping[str, str]:
    return load_backend(source, **options).view_identity_parts(view)


def _changed(one: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def _flip(path: Path, key: str = "") -> None:
    """Change one bit of a weight in a file, whose modification time stays."""
    then = path.stat().st_mtime_ns
    tensors = load_file(path)
    tensors[key or min(tensors)].view(torch.int32).view(-1)[0] ^= 1
    path.unlink()  # safetensors before 0.8 writes over the memory that it loaded
    save_file(tensors, path, metadata={"format": "pt"})
    os.utime(path, ns=(then, then))


def _set_config(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def test_is_a_digest_of_named_parts(source: ModelSource) -> None:
    """It is 64 hex digits, made of parts whose values are short texts or digests."""
    backend = load_backend(source)
    identity = backend.view_identity("ft")
    assert identity == identity_of(backend.view_identity_parts("ft"))
    assert len(identity) == 64
    assert int(identity, 16) > 0
    parts = backend.view_identity_parts("null_1_init0.5")
    assert parts["dtype"] == "float32"
    assert parts["exactness"] == "fast"
    assert parts["view parameter"] == "1_init0.5"


def test_every_view_has_its_own(source: ModelSource) -> None:
    """Views differ, but for the scales that open another view."""
    backend = load_backend(source)
    views = [*VIEWS, "scaled_-1.0", "null_2", "null_1_init0.5"]
    assert len({backend.view_identity(view) for view in views}) == len(views)
    assert backend.view_identity("scaled_0.0") == backend.view_identity("base")
    assert backend.view_identity("scaled_1.0") == backend.view_identity("ft")


def test_one_bit_of_the_base(source: ModelSource) -> None:
    """A bit of a base weight is in the identity of every view."""
    before, parts = _identities(source), _parts(source)
    _flip(Path(source.path) / BASE)
    assert _changed(before, _identities(source)) == set(VIEWS)
    assert _changed(parts, _parts(source)) == {"model weights"}


def test_one_bit_of_the_adapter(source: ModelSource) -> None:
    """A bit of an adapter's weight is in the identity of the views that compute with it."""
    before, parts = _identities(source), _parts(source, "ft")
    _flip(Path(source.adapter or "") / ADAPTER)
    assert _changed(before, _identities(source)) == {"ft", "scaled_2.0"}
    assert _changed(parts, _parts(source, "ft")) == {"adapter weights"}


def test_place_and_names_do_not_matter(source: ModelSource, zoo: Any, tmp_path: Path) -> None:
    """Neither a folder, nor the base that an adapter names, nor PEFT's name for it counts."""
    expected = _identities(source)
    moved = ModelSource(str(tmp_path / "a"), str(tmp_path / "b"))
    shutil.copytree(source.path, moved.path)
    shutil.copytree(source.adapter, moved.adapter)
    config = Path(moved.adapter or "") / "adapter_config.json"
    _set_config(config, base_model_name_or_path="someone/else", revision="main")
    assert _identities(moved) == expected
    with quiet_transformers():
        model = PeftModel.from_pretrained(zoo.base("llama"), source.adapter, adapter_name="mine")
    backend = HFBackend(model, zoo.tokenizer())
    assert {view: backend.view_identity(view) for view in VIEWS} == expected


def test_adapters_of_one_base_share(zoo: Any) -> None:
    """Each adapter has the base's identity, and a null view's where the shapes are equal.

    What is shared has equal values, bit for bit.
    """
    bases, nulls, tuned = {}, {}, set()
    for name in ("lora", "other", "dora", "head", "tokens", "embeddings"):
        backend = HFBackend(zoo.tuned(f"llama_{name}"), zoo.tokenizer(), exactness="strict")
        with backend.as_base() as view:
            value = view.rolling_logprob(PROMPT).logprobs
        shared = bases.setdefault(backend.view_identity("base"), value)
        assert np.array_equal(shared, value)
        with backend.as_null_adapter(1) as view:
            value = view.rolling_logprob(PROMPT).logprobs
        shared = nulls.setdefault(backend.view_identity("null_1"), value)
        assert np.array_equal(shared, value)
        tuned.add(backend.view_identity("ft"))
    assert (len(bases), len(nulls), len(tuned)) == (1, 2, 6)  # LoRA on embeddings has more factors


def test_scaling_is_of_the_null_view_too(source: ModelSource) -> None:
    """An adapter of the same shape that counts more has other null views."""
    before = _identities(source)
    _set_config(Path(source.adapter or "") / "adapter_config.json", lora_alpha=16)
    assert _changed(before, _identities(source)) == {"ft", "scaled_2.0", "null_1"}


def test_dtype_and_exactness(source: ModelSource) -> None:
    """Both are parts; of the same weights in another dtype, each view has another identity."""
    half = ModelSource(source.path, source.adapter, dtype="bfloat16")
    assert _changed(_identities(source), _identities(half)) == set(VIEWS)
    assert _changed(_parts(source), _parts(source, exactness="strict")) == {"exactness"}


def test_attention_implementation(source: ModelSource) -> None:
    """The implementation of attention is a part, though a saved config lacks it."""
    parts = _parts(source)
    _set_config(Path(source.path) / "config.json", attn_implementation="eager")
    changed = _parts(source)
    assert changed["attention implementation"] == "eager"
    assert "attention implementation" in _changed(parts, changed)


def test_settings_of_torch_while_a_backend_is_open(source: ModelSource) -> None:
    """Threads, and the precision of products, count as they are when the identity is asked for."""
    backend = load_backend(source)
    parts, threads = backend.view_identity_parts("base"), torch.get_num_threads()
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_num_threads(threads + 1)
        assert _changed(parts, backend.view_identity_parts("base")) == {"threads"}
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("medium")
        assert _changed(parts, backend.view_identity_parts("base")) == {"matmul precision"}
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


def test_builds_of_the_libraries(source: ModelSource) -> None:
    """The whole version of torch is a part, and another one makes another identity."""
    parts = _parts(source, "ft")
    assert parts["torch build"].startswith(f"{torch.__version__}, ")
    assert {"transformers", "tokenizers", "peft"} <= parts.keys()
    assert "peft" not in _parts(source)
    assert identity_of({**parts, "torch build": "2.99.0+cpu"}) != identity_of(parts)


def test_a_tokenizers_rules_count_and_its_roles_do_not(source: ModelSource) -> None:
    """Another text of a token is a part of base; another token for padding is not."""
    expected = _parts(source)
    config = Path(source.path) / "tokenizer_config.json"
    _set_config(config, pad_token="<eos>")  # noqa: S106 - no password
    assert _changed(expected, _parts(source)) == set()
    rules = config.with_name("tokenizer.json")
    for path in (rules, config):
        path.write_text(path.read_text().replace("<eos>", "<end>"))
    assert _changed(expected, _parts(source)) == {"tokenizer"}


def test_an_equal_tokenizer_of_the_adapter(source: ModelSource, zoo: Any) -> None:
    """A copy of the base's tokenizer in the adapter's folder changes nothing."""
    expected = _identities(source)
    zoo.tokenizer().save_pretrained(source.adapter)
    assert _identities(source) == expected


def test_state_of_the_tokenizer(zoo: Any) -> None:
    """Padding and truncation that a call left in the tokenizer are no part."""
    tokenizer = zoo.tokenizer()
    expected = HFBackend(zoo.tuned("llama_lora"), tokenizer).view_identity("base")
    backend = HFBackend(zoo.tuned("llama_lora"), tokenizer)
    tokenizer([PROMPT], truncation=True, padding="max_length", max_length=4)
    assert backend.view_identity("base") == expected


def test_in_memory_and_from_files(zoo: Any) -> None:
    """A model in memory has the identities of one loaded from its files, however it is adapted."""
    for name in ("llama_lora", "llama_dora", "llama_head", "llama_tokens", "gpt2_tied"):
        backend = HFBackend(zoo.tuned(name), zoo.tokenizer())
        in_memory = {view: backend.view_identity(view) for view in VIEWS}
        assert in_memory == _identities(zoo.source(name), rehash=True)


def test_remembered_and_computed(source: ModelSource, user_cache: Path) -> None:
    """A remembered digest gives the same identity; `rehash` computes and corrects it."""
    expected = _identities(source)
    assert _identities(source) == expected
    for memory in (user_cache / "identities").iterdir():
        memory.write_text("0" * 64)
    assert _changed(_identities(source), expected) == set(VIEWS)
    assert _identities(source, rehash=True) == expected
    assert _identities(source) == expected


@pytest.mark.parametrize("name", [BASE, ADAPTER])
@pytest.mark.parametrize("in_place", [True, False])
def test_a_touched_file_is_hashed_again(source: ModelSource, name: str, in_place: bool) -> None:
    """Another content of the old size and modification time is not taken for the old one."""
    folder = source.path if name == BASE else source.adapter
    path = Path(folder or "") / name
    before, status = _identities(source), path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    if not in_place:
        path.unlink()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert "ft" in _changed(before, _identities(source))


@pytest.mark.parametrize("view", ["base", "scaled", "null"])
@pytest.mark.parametrize("adapter", ["llama_dora", "llama_head"])
def test_in_an_open_view(zoo: Any, adapter: str, view: str) -> None:
    """It is that of the loaded weights while a view has changed them, whose values stay."""
    fresh = HFBackend(zoo.tuned(adapter), zoo.tokenizer())
    expected = {name: fresh.view_identity(name) for name in VIEWS}
    backend = HFBackend(zoo.tuned(adapter), zoo.tokenizer())
    opened = backend.as_base() if view == "base" else getattr(backend, f"as_{view}_adapter")(2)
    with opened as scored:
        before = scored.rolling_logprob(PROMPT).logprobs
        assert {name: backend.view_identity(name) for name in VIEWS} == expected
        backend.instrumentation.cache.clear()
        assert np.array_equal(scored.rolling_logprob(PROMPT).logprobs, before)


def test_after_an_interrupt_in_a_view(zoo: Any) -> None:
    """An interrupt of a view's forward pass leaves the identity that of the loaded weights."""
    model = zoo.tuned("llama_head")
    backend = HFBackend(model, zoo.tokenizer(), exactness="strict")
    expected = HFBackend(zoo.tuned("llama_head"), zoo.tokenizer(), exactness="strict")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    hook = model.get_base_model().model.norm.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt), backend.as_scaled_adapter(3.0) as view:
        view.rolling_logprob(PROMPT)
    hook.remove()
    assert [backend.view_identity(v) for v in VIEWS] == [expected.view_identity(v) for v in VIEWS]


def test_views_that_cannot_be_opened(source: ModelSource) -> None:
    """An id that no view has, has no identity and no parts."""
    backend = load_backend(source)
    for view in ("", "other", "scaled", "null_", "base_1"):
        assert backend.view_identity(view) is None
        assert backend.view_identity_parts(view) == {}


def test_code_of_no_package(zoo: Any) -> None:
    """A model with a module of a class that no version describes has no identity of views."""
    model = zoo.tuned("llama_lora")
    norm = model.get_base_model().model.norm
    norm.__class__ = type("Odd", (type(norm),), {"__module__": "odd_code"})
    backend = HFBackend(model, zoo.tokenizer())
    assert backend.view_identity("base") is None
    assert backend.view_identity_parts("base") == {}
    assert len(backend.identity()) == 64


def _quantised(zoo: Any) -> Any:
    """Return a model whose weights change at its first pass, as bitsandbytes' do."""
    model = zoo.tuned("llama_lora")
    model.config.quantization_config = {"quant_method": "test"}
    norm = model.get_base_model().model.norm

    def repack(*_: object) -> None:
        norm.weight.data.mul_(2)
        hook.remove()

    hook = norm.register_forward_pre_hook(repack)
    return model


@pytest.mark.parametrize("from_files", [True, False])
def test_a_quantised_state_that_changes(zoo: Any, from_files: bool) -> None:
    """A quantised base has one identity, before its first pass and after it."""
    files = sign([zoo.path("llama") / BASE]) if from_files else None
    identities = []
    for is_used in (False, True):
        origin = Origin(files=files, rehash=True)
        backend = HFBackend(_quantised(zoo), zoo.tokenizer(), exactness="strict", origin=origin)
        if is_used:
            with backend.as_base() as view:
                view.next_token_dist(PROMPT)
        identities.append({name: backend.view_identity(name) for name in VIEWS})
    assert identities[0] == identities[1]


def test_pair_shares_with_adapters_and_with_bases(zoo: Any, tmp_path: Path) -> None:
    """A pair's base is the base of an adapter, and its tuned model the base of another pair."""
    with quiet_transformers():
        zoo.tuned("llama_lora").merge_and_unload().save_pretrained(tmp_path / "tuned")
    zoo.tokenizer().save_pretrained(tmp_path / "tuned")
    base, tuned = str(zoo.path("llama")), str(tmp_path / "tuned")
    pair = load_backend(ModelSource(base, tuned=tuned))
    swapped = load_backend(ModelSource(tuned, tuned=base))
    assert pair.view_identity("base") == load_backend(zoo.source("llama_lora")).view_identity(
        "base"
    )
    assert pair.view_identity("ft") == swapped.view_identity("base")
    assert pair.view_identity("base") == swapped.view_identity("ft")
    assert pair.view_identity("scaled_2.0") is None
