"""A check on the model decides which optimisations are used, and names those that are off."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    GPTNeoConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    RecurrentGemmaConfig,
    RobertaConfig,
)

from forwardscope import BackendInstrumentation
from forwardscope.backends.hf import HFBackend, check, compat, forward
from forwardscope.backends.hf.loading import quiet_transformers

Open = Callable[..., HFBackend]

RELEASE = tuple(int(part) for part in version("transformers").split(".")[:2])

ON = {"prefix sharing": "on", "padded batches": "on"}
SHARED = "the cats sat there and the weather, "
PROMPTS = [SHARED + end for end in ("hello there world", "x", "on the mat")]
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}


@pytest.fixture(autouse=True)
def _short_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "CPU_STEP", 4)


@pytest.fixture
def adapted(zoo: Any) -> Callable[..., Any]:
    """Return a function that builds the same random model with the same adapter each time."""

    def build(config: Any, kind: Any = AutoModelForCausalLM, **lora: Any) -> Any:
        torch.manual_seed(0)
        with quiet_transformers():
            make = kind.from_config if kind is AutoModelForCausalLM else kind
            model = make(config).eval()
            settings = {"target_modules": "all-linear", "init_lora_weights": False, **lora}
            return get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM", **settings)).eval()

    return build


def _worst(backend: HFBackend, plain: Any, prompts: list[str] = PROMPTS) -> float:
    """Return the largest difference of log-probabilities to plain calls with single prompts."""
    tokenizer, worst = backend._forward.tokenizer, 0.0
    with backend.as_finetuned() as view:
        dists = view.next_token_dist_batch(prompts, top_k=10_000)
    for prompt, dist in zip(prompts, dists, strict=True):
        with torch.no_grad():
            logits = plain(torch.tensor([tokenizer(prompt)["input_ids"]]), use_cache=False).logits
        expected = logits[0, -1].log_softmax(-1).numpy()
        worst = max(worst, float(np.abs(dist.logprobs - expected[dist.token_ids]).max()))
    return worst


def _reused(backend: HFBackend) -> int:
    return backend.instrumentation.ledger.snapshot().tokens_reused


@pytest.mark.parametrize(
    ("config", "sharing"),
    [
        (LlamaConfig(**SIZES), "on"),
        (RobertaConfig(**SIZES, is_decoder=True), "on"),  # its positions begin at 2
        (
            GPTNeoConfig(
                **{**SIZES, "num_layers": 2, "num_heads": 4},
                attention_types=[[["global", "local"], 1]],
                window_size=8,
            ),
            "on",
        ),
        (
            GPTNeoConfig(
                **{**SIZES, "num_layers": 2, "num_heads": 4},
                attention_types=[[["global", "local"], 1]],
                window_size=check.MAX_WINDOW + 1,
            ),
            "off (this model has an attention window of 513 tokens, longer than the check)",
        ),
        (
            MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=8),
            "off (this model keeps a sliding window)",
        ),
        (
            RecurrentGemmaConfig(**{**SIZES, "num_hidden_layers": 3}, lru_width=32),
            "off (this model returns no cache of keys and values)"
            if RELEASE >= (5, 23)
            else "off (this model has an attention window of 2048 tokens, longer than the check)",
        ),
    ],
    ids=["llama", "roberta", "gpt_neo", "long_window", "mistral", "recurrent_gemma"],
)
def test_models(zoo: Any, adapted: Any, config: Any, sharing: str) -> None:
    """Where sharing is on, tokens are reused; the values are the model's in any case."""
    config.vocab_size = zoo.vocab_size
    backend = HFBackend(adapted(config), zoo.tokenizer())
    assert backend.optimisations == {"prefix sharing": sharing, "padded batches": "on"}
    assert _worst(backend, adapted(config)) < 1e-4
    assert (_reused(backend) > 0) == (sharing == "on")


def test_activated_lora(zoo: Any, adapted: Any) -> None:
    """An adapter that is activated by tokens in the prefix has no shared prefixes."""
    config = LlamaConfig(**SIZES, vocab_size=zoo.vocab_size)
    tokens = zoo.tokenizer()(", ")["input_ids"]
    lora = {"target_modules": ["q_proj", "v_proj"], "alora_invocation_tokens": tokens}
    backend = HFBackend(adapted(config, **lora), zoo.tokenizer())
    reason = "the adapter is an activated LoRA, which searches the whole prompt"
    assert backend.optimisations == {**ON, "prefix sharing": f"off ({reason})"}
    plain = adapted(config, **lora)
    assert _worst(backend, plain) < 1e-4
    with plain.disable_adapter():
        assert _worst(backend, plain) > 1e-2


def test_the_check_finds_an_adapter_that_reads_the_prefix(
    zoo: Any, adapted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the rule for activated LoRA the check's prompts, which activate it, show it."""
    config = LlamaConfig(**SIZES, vocab_size=zoo.vocab_size)
    tokens = zoo.tokenizer()(", ")["input_ids"]
    lora = {"target_modules": ["q_proj", "v_proj"], "alora_invocation_tokens": tokens}
    monkeypatch.setattr(check, "_known_reason", lambda *_: None)
    backend = HFBackend(adapted(config, **lora), zoo.tokenizer())
    assert backend.optimisations["prefix sharing"].startswith("off (log-probabilities differ by ")


def test_strict_uses_none(open_backend: Open) -> None:
    """The reason is the exactness."""
    backend = open_backend(exactness="strict")
    assert set(backend.optimisations.values()) == {"off (exactness is strict)"}


def test_the_check_costs_no_lookup(zoo: Any) -> None:
    """It is in no count, and the model's weights and torch's random state are as before."""
    model, random = zoo.tuned("llama_lora"), torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    backend = HFBackend(model, zoo.tokenizer())
    assert backend.optimisations == ON
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    stats = backend.instrumentation.stats
    assert (stats.total_lookups, stats.forward_passes) == (0, 0)


def test_a_model_that_raises(zoo: Any, adapted: Any) -> None:
    """The check's exception is the reason; lookups raise it as without a check."""
    model = adapted(LlamaConfig(**SIZES, vocab_size=zoo.vocab_size))

    def fail(*_: object) -> None:
        raise RuntimeError("no kernel\nfor this")

    model.get_output_embeddings().register_forward_pre_hook(fail)
    backend = HFBackend(model, zoo.tokenizer())
    assert set(backend.optimisations.values()) == {"off (the check raised RuntimeError: no kernel)"}
    with backend.as_base() as view, pytest.raises(RuntimeError, match="no kernel"):
        view.next_token_dist("the cat")


def test_logits_that_are_not_finite(zoo: Any, adapted: Any) -> None:
    """NaN in both ways is no difference; the lookups report it."""
    model = adapted(LlamaConfig(**SIZES, vocab_size=zoo.vocab_size))
    nan = lambda _module, _inputs, logits: logits.index_fill(-1, torch.tensor([5]), torch.nan)  # noqa: E731
    model.get_output_embeddings().register_forward_hook(nan)
    assert HFBackend(model, zoo.tokenizer()).optimisations == ON


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(zoo: Any, adapted: Any, dtype: torch.dtype) -> None:
    """Rounding errors of half precision turn nothing off."""
    model = adapted(LlamaConfig(**SIZES, vocab_size=zoo.vocab_size)).to(dtype)
    assert HFBackend(model, zoo.tokenizer()).optimisations == ON


def test_rotary_embedding_of_the_length(zoo: Any, adapted: Any) -> None:
    """Prompts so long that their length changes all values are computed alone."""
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 16,
    }
    config = LlamaConfig(**SIZES, vocab_size=zoo.vocab_size, rope_parameters=rope)
    backend = HFBackend(adapted(config), zoo.tokenizer())
    limit = "for prompts of up to 16 tokens; the rotary embedding of others differs"
    assert set(backend.optimisations.values()) == {f"on ({limit})"}
    lengths = [len(zoo.tokenizer()(prompt)["input_ids"]) for prompt in [*PROMPTS, SHARED * 3]]
    assert min(lengths) < 16 < max(lengths)
    assert _worst(backend, adapted(config), [SHARED * 3 + "x", *PROMPTS, SHARED * 3]) < 1e-4
    assert _reused(backend) > 0


class _OldName(LlamaForCausalLM):
    """Its forward method names the cache as transformers before 5.24."""

    def forward(
        self, input_ids: Any = None, past_key_values: Any = None, use_cache: Any = None, **_: Any
    ) -> Any:
        return _with_cache(self, "past_key_values", input_ids, past_key_values, use_cache)


class _NewName(LlamaForCausalLM):
    """Its forward method names the cache as transformers 5.24."""

    def forward(
        self, input_ids: Any = None, cache: Any = None, use_cache: Any = None, **_: Any
    ) -> Any:
        return _with_cache(self, "cache", input_ids, cache, use_cache)


class _UnknownName(LlamaForCausalLM):
    """Its forward method names the cache as no known transformers."""

    def forward(
        self, input_ids: Any = None, memory: Any = None, use_cache: Any = None, **_: Any
    ) -> Any:
        return _with_cache(self, "memory", input_ids, memory, use_cache)


def _with_cache(model: Any, name: str, ids: Any, cache: Any, use_cache: Any) -> Any:
    """Call Llama with the installed name, and return the cache under another."""
    installed = compat.forward_arguments(LlamaForCausalLM).cache
    call = super(type(model), model).forward
    output = call(input_ids=ids, use_cache=use_cache, **{str(installed): cache})
    return SimpleNamespace(**{"logits": output.logits, name: compat.computed_cache(output)})


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (_OldName, "on"),
        (_NewName, "on"),
        (
            _UnknownName,
            "off (this model's forward method has no argument past_key_values or cache)",
        ),
    ],
)
def test_names_of_the_cache(zoo: Any, adapted: Any, kind: Any, state: str) -> None:
    """Prefixes are shared under each known name; under another the reason says so."""
    config = LlamaConfig(**SIZES, vocab_size=zoo.vocab_size)
    backend = HFBackend(adapted(config, kind), zoo.tokenizer())
    assert backend.optimisations["prefix sharing"] == state
    assert _worst(backend, adapted(config)) < 1e-4
    assert (_reused(backend) > 0) == (state == "on")


def test_installed_names_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The installed transformers and PEFT have all names; what a release lacks is reported."""
    assert compat.check_names() == []
    with pytest.raises(KeyError):
        compat.lora_setting(None, "unlisted")
    monkeypatch.setattr(compat, "CACHE_NAMES", ("memory",))
    monkeypatch.setattr(compat, "_LORA_SETTINGS", ("bias", "prejudice"))
    cache, setting = compat.check_names()
    assert cache.endswith("names the cache none of memory; prefixes are not shared")
    assert "has no LoraConfig.prejudice" in setting


def test_a_cache_that_changes_later(open_backend: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that cannot be cut after the check turns sharing off, for the reason named."""
    backend = open_backend()
    monkeypatch.setattr(compat, "computed_cache", lambda output: None)
    with backend.as_base() as view:
        view.next_token_dist_batch(PROMPTS)
    reason = "this model returns no cache of keys and values"
    assert backend.optimisations["prefix sharing"] == f"off ({reason})"


def test_positions_beyond_the_table(zoo: Any, adapted: Any) -> None:
    """The context of a model whose positions begin later is shorter by as many."""
    sizes = {**SIZES, "max_position_embeddings": 34, "vocab_size": zoo.vocab_size}
    config = RobertaConfig(**sizes, is_decoder=True, pad_token_id=1)
    instrumentation = BackendInstrumentation()
    backend = HFBackend(adapted(config), zoo.tokenizer(), instrumentation=instrumentation)
    assert backend._forward.context == 32
    with backend.as_base() as view:
        assert view.rolling_logprob("x" * 32).num_tokens == 32


def test_backend_says_what_it_computes_with(open_backend: Open) -> None:
    """Exactness, dtype and device are in the result of a suite."""
    backend = open_backend(exactness="strict")
    assert (backend.exactness, backend.dtype, backend.device) == ("strict", "float32", "cpu")
