"""Values of many architectures, as tiny random models, are those of transformers and PEFT.

By default the architectures in `QUICK`; with the environment variable
FORWARDSCOPE_SOAK all that transformers has for causal language models, except
those in `LEFT_OUT`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from forwardscope.backends.hf import HFBackend, forward
from forwardscope.backends.hf.loading import quiet_transformers

#: Sizes by the names that configs give them; each config takes those that it has.
_WIDTHS = ("hidden_size", "n_embd", "d_model", "emb_dim", "dim", "embedding_size", "lru_width")
_INNER = ("intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim", "d_ff", "hidden_dim")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads")
_HEAD = ("head_dim", "d_kv", "d_head", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
_CONTEXTS = ("max_position_embeddings", "n_positions", "max_seq_len")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_EXPERT = ("moe_intermediate_size", "shared_expert_intermediate_size")
_WINDOWS = ("sliding_window", "window_size", "attention_window_size", "attention_chunk_size")
SIZES: dict[str, Any] = {
    "vocab_size": 300,
    **dict.fromkeys([*_WIDTHS, *_EXPERT, "word_embed_proj_dim"], 32),
    **dict.fromkeys([*_INNER, "encoder_ffn_dim", "d_inner"], 64),
    **dict.fromkeys([*_LAYERS, "encoder_layers", "num_key_value_heads"], 2),
    **dict.fromkeys([*_HEADS, "encoder_attention_heads", *_EXPERTS], 4),
    **dict.fromkeys([*_HEAD, *_WINDOWS, "rotary_dim", "state_size"], 8),
    **dict.fromkeys(_CONTEXTS, 256),
    **dict.fromkeys(["kv_lora_rank", "q_lora_rank"], 16),
    **dict.fromkeys(["num_experts_per_tok", "moe_k"], 2),
    **dict.fromkeys(["n_group", "topk_group", "bos_token_id"], 1),
    "is_decoder": True,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
_MLA = {"num_key_value_heads": 4}  # multi-head latent attention has no grouped heads
_LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
#: What a config needs beyond `SIZES`; None stands for the config's default.
MORE_SIZES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(["axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32"], _MLA),
    **dict.fromkeys(
        ["glm4_moe_lite", "glm_moe_dsa", "longcat_flash", "minicpm3", "sarvam_mla"], _MLA
    ),
    "youtu": _MLA,
    **dict.fromkeys(["qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"], _LINEAR),
    "bamba": {**_MAMBA, "attn_layer_indices": [1]},
    "dots1": {"n_shared_experts": 1},
    "falcon": {"head_dim": None},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {**_MAMBA, "layer_types": ["mamba", "attention"]},
    "jamba": {
        "attn_layer_offset": 1,
        "attn_layer_period": 2,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "n_groups": 1},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {
        "axial_pos_shape": (16, 16),
        "axial_pos_embds_dim": (8, 24),
        "attention_head_size": 8,
        "feed_forward_size": 64,
    },
    "xlnet": {"max_position_embeddings": None},
    "xmod": {"default_language": "en_XX"},
}
#: At least one of each kind: positions, windows, caches, experts, recurrent states.
_QUICK = """
apertus bamba bart bert bigbird_pegasus biogpt bloom codegen cohere2 cpmant deepseek_v3
electra exaone4 falcon falcon_mamba gemma gemma2 gemma3_text glm4 gpt2 gpt_bigcode gpt_neo
gpt_neox gpt_oss gptj granite granitemoehybrid jamba lfm2 llama mamba2 mistral mixtral
modernbert-decoder mpt olmo2 olmoe opt phi phi3 qwen2 qwen3_5_text qwen3_moe
recurrent_gemma roberta rwkv smollm3 stablelm starcoder2 xglm xlm xlnet
"""
QUICK = _QUICK.split()
_MULTIMODAL = "it is multimodal; its text model is in the list under a name of its own"
_PER_LAYER = "its layers have sizes of their own, which SIZES cannot set"
_LARGE = "some of its sizes have no setting, so it is too large"
_INCONSISTENT = "its sizes depend on each other"
_ROUTER = "PEFT cannot adapt its router, which returns a tuple"
#: Architectures that are not built as tiny models, and why.
LEFT_OUT = {
    **dict.fromkeys(["aria", "emu3", "fuyu", "gemma3", "gemma3n", "gemma4"], _MULTIMODAL),
    **dict.fromkeys(["gemma4_unified", "got_ocr2", "llama4", "mllama"], _MULTIMODAL),
    **dict.fromkeys(["moss_transcribe_diarize", "musicgen", "musicgen_melody"], _MULTIMODAL),
    **dict.fromkeys(["phi4_multimodal", "qwen3_5", "qwen3_5_moe", "qwen4_exp"], _MULTIMODAL),
    **dict.fromkeys(["dots3_note", "gemma4_assistant"], _MULTIMODAL),
    **dict.fromkeys(["gemma4_unified_assistant", "git"], _MULTIMODAL),
    **dict.fromkeys(["dots3_note_text", "gemma4_text", "gemma4_unified_text"], _PER_LAYER),
    **dict.fromkeys(["gemma3n_text", "cohere_compass_text"], _PER_LAYER),
    **dict.fromkeys(["blt", "falcon_h1", "kimi_linear", "roc_bert"], _LARGE),
    **dict.fromkeys(["deepseek_v4", "prophetnet", "xlstm", "zamba", "zamba2"], _INCONSISTENT),
    **dict.fromkeys(["zaya", "qwen4_exp_text"], _INCONSISTENT),
    **dict.fromkeys(["llama4_text", "phimoe"], _ROUTER),
    "dbrx": "transformers cannot build it from a config without rope_theta",
    "hrm_text": "its recurrence multiplies rounding errors, so that no two ways agree",
}
ALL = [name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in LEFT_OUT]

SHARED = "the cats sat there and the weather, "
PROMPTS = [
    SHARED + "hello there world",
    "x",
    SHARED + "on the mat",
    "another weather is together",
    SHARED + "x",
    "<pad>" * 40 + SHARED + "mat",  # RoBERTa and others derive positions from padding
    "<pad>" * 40 + SHARED + "cat",
]
SCALE, NULL_SCALE, NULL_SEED = 0.5, 0.1, 3
VIEWS: dict[str, Callable[[HFBackend], Any]] = {
    "base": lambda backend: backend.as_base(),
    "ft": lambda backend: backend.as_finetuned(),
    "scaled": lambda backend: backend.as_scaled_adapter(SCALE),
    "null": lambda backend: backend.as_null_adapter(NULL_SEED, init_scale=NULL_SCALE),
}


@pytest.mark.parametrize("name", ALL if "FORWARDSCOPE_SOAK" in os.environ else QUICK)
def test_values_are_those_of_single_prompts(
    zoo: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Alone, padded and after a shared prefix; the weights are as before, bit for bit."""
    monkeypatch.setattr(forward, "CPU_STEP", 4)  # so that short prefixes are shared
    with quiet_transformers():
        base = _base(name)
        references = _references(base)
        tuned = _tuned(base)
        tokenizer = zoo.tokenizer()
        ids = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
        expected = {view: _plain(model, ids) for view, model in references.items()}
        before = {key: tensor.clone() for key, tensor in tuned.state_dict().items()}
        for exactness in ("fast", "strict"):
            backend = HFBackend(tuned, tokenizer, exactness=exactness)
            for view, opened in VIEWS.items():
                with opened(backend) as scorer:
                    got = _all_positions(scorer, ids)
                _compare(got, expected[view], f"{view} in {exactness}")
            reused = backend.instrumentation.ledger.snapshot().tokens_reused
            assert (reused > 0) == (backend.optimisations["prefix sharing"] == "on")
    after = tuned.state_dict()
    assert before.keys() == after.keys()
    assert [key for key in before if not torch.equal(before[key], after[key])] == []
    changed = np.abs(expected["ft"][0][0] - expected["base"][0][0]).max()
    assert changed > 1e-3  # the adapter has an effect


def _base(name: str) -> Any:
    kind = CONFIG_MAPPING[name]
    default, more = kind(), MORE_SIZES.get(name, {})
    sizes = {key: value for key, value in SIZES.items() if hasattr(default, key)} | more
    config = kind(**{key: value for key, value in sizes.items() if value is not None})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # larger than at the start of training, so that errors show
                parameter.mul_(3)
    return model


def _tuned(base: Any) -> Any:
    """Adapt all linear layers, or the ones that PEFT allows in a Mamba model."""
    torch.manual_seed(1)
    for targets in ("all-linear", ["in_proj", "x_proj", "q_proj"]):
        config = LoraConfig(
            r=2, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=False
        )
        try:
            return get_peft_model(base, config).eval()
        except ValueError as error:
            if "incompatible with Mamba" not in str(error):
                raise
    raise AssertionError("PEFT adapts no layer")


def _references(base: Any) -> dict[str, Any]:
    """Return a model of its own for each view."""
    models = {view: copy.deepcopy(base) for view in VIEWS}
    models |= {view: _tuned(model) for view, model in models.items() if view != "base"}
    for key, parameter in models["scaled"].named_parameters():
        if "lora_B" in key or "lora_embedding_B" in key:
            parameter.data *= SCALE
    generator = torch.Generator().manual_seed(NULL_SEED)
    for key, parameter in models["null"].named_parameters():
        if "lora_" in key:
            parameter.data = torch.randn(parameter.shape, generator=generator) * NULL_SCALE
    return models


def _plain(model: Any, prompts: Sequence[list[int]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the distribution after each prompt, and the log-probability of each of its tokens."""
    values = []
    for ids in prompts:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        logprobs = logits.double().log_softmax(-1).numpy()
        values.append((logprobs[-1], logprobs[np.arange(len(ids) - 1), ids[1:]]))
    return values


def _all_positions(view: Any, ids: Sequence[list[int]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the same values from a view, of prompts in a batch; check a single prompt too."""
    dists = view.next_token_dist_batch(PROMPTS, top_k=10**6)
    rolled = view.rolling_logprob_batch(PROMPTS)
    single = view.next_token_dist(PROMPTS[0], top_k=1)
    assert abs(single.logprobs[0] - dists[0].logprobs[0]) < 1e-4
    assert [roll.token_ids.tolist() for roll in rolled] == list(ids)
    by_token = [dist.logprobs[np.argsort(dist.token_ids)] for dist in dists]
    return list(zip(by_token, [roll.logprobs for roll in rolled], strict=True))


def _compare(
    got: Sequence[tuple[np.ndarray, np.ndarray]],
    expected: Sequence[tuple[np.ndarray, np.ndarray]],
    where: str,
) -> None:
    for pair, other in zip(got, expected, strict=True):
        for one, two in zip(pair, other, strict=True):
            assert np.abs(one - two).max(initial=0.0) < 1e-4, where
