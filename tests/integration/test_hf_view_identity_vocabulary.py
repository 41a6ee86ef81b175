"""Identities of views where an adapter has another vocabulary than its base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from forwardscope.backends.hf import HFBackend, ModelSource, load_backend
from forwardscope.backends.hf.loading import quiet_transformers

ROWS = 304


def _backend(
    zoo: Any, folder: Path, *, seed: int = 1, tokens: bool = False, exactness: Any = "fast"
) -> HFBackend:
    """Load an adapter that was trained on a base of more rows, whose added rows are random."""
    with quiet_transformers():
        base = zoo.base("llama")
        torch.manual_seed(seed)
        base.resize_token_embeddings(ROWS)
        torch.manual_seed(1)
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        get_peft_model(base, config).save_pretrained(folder, save_embedding_layers=True)
    tokenizer = zoo.tokenizer()
    if tokens:
        tokenizer.add_tokens([f"<|{i}|>" for i in range(len(tokenizer), ROWS)])
    tokenizer.save_pretrained(folder)
    source = ModelSource(str(zoo.path("llama")), str(folder), device="cpu")
    return load_backend(source, exactness=exactness, rehash=True)


def _changed(one: HFBackend, other: HFBackend, view: str) -> set[str]:
    first, second = one.view_identity_parts(view), other.view_identity_parts(view)
    return {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}


@pytest.mark.parametrize("view", ["base", "null_1"])
def test_rows_that_no_token_reaches(zoo: Any, tmp_path: Path, view: str) -> None:
    """They leave base the unmodified model; in strict, their number can change the last bit."""
    fast, strict = (
        _changed(
            load_backend(zoo.source("llama_lora"), exactness=exactness),
            _backend(zoo, tmp_path / exactness, exactness=exactness),
            view,
        )
        for exactness in ("fast", "strict")
    )
    assert fast - {"adapter shape"} == set()
    assert strict - {"adapter shape"} == {"computed vocabulary"}


def test_rows_of_tokens(zoo: Any, tmp_path: Path) -> None:
    """Rows that a prompt can reach are a part of base, by their values."""
    plain = load_backend(zoo.source("llama_lora"))
    one = _backend(zoo, tmp_path / "one", tokens=True)
    other = _backend(zoo, tmp_path / "other", tokens=True, seed=2)
    assert _changed(plain, one, "base") == {"tokenizer", "added tokens"}
    assert _changed(one, other, "base") == {"added tokens"}
    assert _changed(one, _backend(zoo, tmp_path / "same", tokens=True), "base") == set()


def test_rows_are_of_the_adapter(zoo: Any, tmp_path: Path) -> None:
    """The tuned view predicts the added tokens, so that their rows are of its adapter."""
    one, other = (_backend(zoo, tmp_path / str(seed), seed=seed) for seed in (1, 2))
    assert _changed(one, other, "base") == set()
    assert _changed(one, other, "ft") == {"adapter weights"}
