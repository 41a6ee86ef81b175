"""A GGUF file is a model as good as a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGUFWriter, TokenType

from forwardscope.backends.hf import ModelSource, load_backend
from forwardscope.errors import ModelError

PROMPTS = ["the cat sat on the mat", "x", "hello there world"]
#: What llama.cpp calls the tensors of a layer.
LAYER_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


@pytest.fixture
def source(zoo: Any, tmp_path: Path) -> ModelSource:
    """The zoo's Llama in one file, with its adapter."""
    path = tmp_path / "tiny.gguf"
    _write_gguf(path, zoo.base("llama"), zoo.path("llama") / "tokenizer.json")
    return replace(zoo.source("llama_lora"), path=str(path))


def _write_gguf(path: Path, model: Any, tokenizer: Path) -> None:
    config = model.config
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, json.loads(tokenizer.read_text())["model"])
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        theirs, weights = _gguf_name(name), tensor.numpy()
        rotated = heads.get(theirs.split(".")[-2])
        writer.add_tensor(theirs, _interleaved(weights, rotated) if rotated else weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: GGUFWriter, bpe: dict[str, Any]) -> None:
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].__getitem__)
    special = {"<pad>", "<eos>"}
    kinds = [TokenType.CONTROL if t in special else TokenType.NORMAL for t in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)


def _gguf_name(name: str) -> str:
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in whole:
        return whole[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[rest.removesuffix('.weight')]}.weight"


def _interleaved(weights: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Rotary halves side by side, as llama.cpp keeps them."""
    rows, columns = weights.shape
    halves = weights.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def test_values_are_those_of_the_folder(
    source: ModelSource, zoo: Any, reference: Callable[..., Any]
) -> None:
    """Base and tuned views of a GGUF file give what transformers gives on the same weights."""
    backend = load_backend(source)
    for opened, tuned in ((backend.as_base, False), (backend.as_finetuned, True)):
        plain = reference("llama_lora", tuned=tuned)
        with opened() as view:
            for prompt, roll in zip(PROMPTS, view.rolling_logprob_batch(PROMPTS), strict=True):
                assert roll.token_ids.tolist() == plain.ids(prompt)
                assert np.abs(roll.logprobs - plain.rolling(prompt)).max(initial=0.0) < 1e-4


def test_identity_is_the_same_in_every_place(source: ModelSource, tmp_path: Path) -> None:
    """A GGUF file has an identity of its own, the same on each load and in another place."""
    expected = load_backend(source).identity()
    assert load_backend(source).identity() == expected
    moved = Path(source.path).rename(tmp_path / "moved.gguf")
    assert load_backend(replace(source, path=str(moved))).identity() == expected


def test_file_that_was_cut_off(source: ModelSource) -> None:
    """A GGUF file whose tensors end early is refused by its name."""
    path = Path(source.path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ModelError, match=r"tiny\.gguf cannot be loaded"):
        load_backend(source)
