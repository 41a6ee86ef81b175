"""Scaled and null views change all that an adapter changes: DoRA, saved modules, trained tokens.

The expected weights come from PEFT's own merge, interpolated by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.dora import DoraLinearLayer
from peft.tuners.lora.variants import DoraLinearVariant

from forwardscope.backends import ScoringView
from forwardscope.backends.hf import HFBackend, weight_changes
from forwardscope.backends.hf.loading import quiet_transformers
from forwardscope.errors import PromptError, UnsupportedViewError
from forwardscope.probes import AdapterAblation, DeltaKL, NullAdapter, PromptCollapse, Verdict
from forwardscope.suite import SuiteSpec, run_suite
from forwardscope.suite.spec import ModelSpec

Floats = npt.NDArray[np.float32]

PROMPT = "the cat sat on the mat"
LLAMA, GPT2 = ["q_proj", "v_proj"], ["c_attn", "c_proj"]
ALL = [*LLAMA, "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TOKENS = [259, 268]

#: Model and LoRA settings of each adapter.
ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("llama", {"target_modules": ALL}),
    "rslora": ("llama", {"target_modules": LLAMA, "use_rslora": True}),
    "dora": ("llama", {"target_modules": ALL, "use_dora": True}),
    "dora of embeddings": (
        "llama",
        {"target_modules": ["embed_tokens", "v_proj"], "use_dora": True},
    ),
    "dora of Conv1D": ("gpt2", {"target_modules": GPT2, "use_dora": True, "fan_in_fan_out": True}),
    "dora and head": (
        "llama",
        {"target_modules": ALL, "use_dora": True, "modules_to_save": ["lm_head"]},
    ),
    "norms": ("llama", {"target_modules": LLAMA, "modules_to_save": ["norm", "embed_tokens"]}),
    "layer": ("llama", {"target_modules": LLAMA, "modules_to_save": ["mlp"]}),
    "tokens": ("llama", {"target_modules": LLAMA, "trainable_token_indices": TOKENS}),
    "tied tokens": ("gpt2", {"target_modules": GPT2, "trainable_token_indices": TOKENS}),
    "tied module": (
        "gpt2",
        {"target_modules": GPT2, "modules_to_save": ["wte"], "ensure_weight_tying": True},
    ),
    "bias": ("gpt2", {"target_modules": GPT2, "lora_bias": True, "fan_in_fan_out": True}),
}
adapters = pytest.mark.parametrize("adapter", ADAPTERS)


def make(zoo: Any, adapter: str, *, seed: int = 1, **options: Any) -> PeftModel:
    """Return a model with an adapter, all of whose parts differ from the base's."""
    model, settings = ADAPTERS[adapter]
    config = LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **{**settings, **options})
    with quiet_transformers():
        tuned = get_peft_model(zoo.base(model), config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return tuned.eval()


def rolling(view: ScoringView) -> Floats:
    return view.rolling_logprob(PROMPT).logprobs


def tuned_values(zoo: Any, model: Any) -> Floats:
    with HFBackend(model, zoo.tokenizer(), exactness="strict").as_finetuned() as view:
        return rolling(view)


@adapters
@pytest.mark.parametrize("lam", [-0.5, 0.25, 0.75, 1.5])
def test_scale_interpolates_all_weights(
    zoo: Any, reference: Callable[..., Any], adapter: str, lam: float
) -> None:
    """A scaled view has the values of the weights W + lam * (W' - W) of PEFT's merged model."""
    model = make(zoo, adapter)
    with quiet_transformers():
        merged = deepcopy(model).merge_and_unload()
    original = dict(zoo.base(ADAPTERS[adapter][0]).named_parameters(remove_duplicate=False))
    for name, parameter in merged.named_parameters():
        parameter.data = original[name].data + lam * (parameter.data - original[name].data)
    plain = type(reference("llama_lora"))(merged, zoo.tokenizer())
    with HFBackend(model, zoo.tokenizer()).as_scaled_adapter(lam) as view:
        assert np.abs(rolling(view) - plain.rolling(PROMPT)).max() < 1e-4


@adapters
@pytest.mark.parametrize("opened", ["as_scaled_adapter", "as_null_adapter"])
def test_tuned_values_are_as_before(zoo: Any, adapter: str, opened: str) -> None:
    """After a scaled or null view, all weights and the fine-tuned values are the same bits."""
    model = make(zoo, adapter)
    backend = HFBackend(model, zoo.tokenizer(), exactness="strict")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with backend.as_finetuned() as view:
        expected = rolling(view)
    with pytest.raises(ZeroDivisionError), getattr(backend, opened)(3) as view:
        assert np.abs(rolling(view) - expected).max() > 1e-3
        raise ZeroDivisionError
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert np.array_equal(tuned_values(zoo, model), expected)


@adapters
def test_null_view_has_no_trained_values(zoo: Any, adapter: str) -> None:
    """Two adapters of one shape, trained differently, have equal null views."""
    values = []
    for seed in (1, 2):
        backend = HFBackend(make(zoo, adapter, seed=seed), zoo.tokenizer(), exactness="strict")
        with backend.as_null_adapter(5, init_scale=0.2) as view:
            values.append(rolling(view))
        with backend.as_base() as view:
            assert np.abs(rolling(view) - values[-1]).max() > 1e-3
    assert np.array_equal(values[0], values[1])


def test_null_dora_is_as_peft_initialises_it(zoo: Any) -> None:
    """A null view's values are those of a new DoRA adapter with the same factors."""
    model = make(zoo, "dora")
    with HFBackend(model, zoo.tokenizer()).as_null_adapter(5, init_scale=0.2) as view:
        got = rolling(view)
        factors = {n: p.clone() for n, p in model.named_parameters() if "lora_" in n}
    fresh = make(zoo, "dora")
    fresh.load_state_dict(factors, strict=False)
    for layer in fresh.modules():
        if isinstance(layer, LoraLayer):
            magnitude = layer.lora_magnitude_vector["default"]
            assert isinstance(magnitude, DoraLinearLayer)
            magnitude.update_layer(
                base_layer=layer.get_base_layer(),
                lora_A=layer.lora_A["default"].weight,
                lora_B=layer.lora_B["default"].weight,
                scaling=layer.scaling["default"],
            )
    assert np.abs(got - tuned_values(zoo, fresh)).max() < 1e-4


def test_null_biases_are_zero(zoo: Any) -> None:
    """LoRA's own biases are 0 in a null view, as before training."""
    values = []
    for lora_bias in (True, False):
        model = make(zoo, "bias", lora_bias=lora_bias)
        with HFBackend(model, zoo.tokenizer()).as_null_adapter(5, init_scale=0.2) as view:
            values.append(rolling(view))
    assert np.abs(values[0] - values[1]).max() < 1e-5


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_convolutions_are_scaled(dimensions: int, use_dora: bool) -> None:
    """A convolution's output is that of the interpolated weights, and is the same bits after."""
    torch.manual_seed(0)
    kind = torch.nn.Conv1d if dimensions == 1 else torch.nn.Conv2d
    base = torch.nn.Sequential(kind(3, 4, 2), torch.nn.ReLU())
    config = LoraConfig(r=2, target_modules=["0"], use_dora=use_dora, init_lora_weights=False)
    with quiet_transformers():
        model = get_peft_model(deepcopy(base), config).eval()
    for name, parameter in model.named_parameters():
        if "magnitude" in name:
            parameter.data *= 1.3
    merged = deepcopy(model).merge_and_unload()
    weight = base[0].weight.data
    merged[0].weight.data = weight + 0.4 * (merged[0].weight.data - weight)
    x = torch.randn([2, 3, *[6] * dimensions])
    with torch.no_grad():
        before = model(x)
        with weight_changes.scaled(model, 0.4):
            scaled = model(x)
        assert torch.allclose(scaled, merged(x), atol=1e-5)
        assert torch.equal(model(x), before)


@pytest.mark.parametrize("lam", [0.01, 0.5])
def test_half_precision_is_scaled(lam: float) -> None:
    """DoRA in bfloat16 is scaled in float32 and rounded once."""
    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(16, 8))
    config = LoraConfig(r=2, target_modules=["0"], use_dora=True, init_lora_weights=False)
    model = get_peft_model(base, config).eval().to(torch.bfloat16)
    x = torch.randn(5, 16, dtype=torch.bfloat16)
    with torch.no_grad():
        tuned = model(x).float()
        with model.disable_adapter():
            start = model(x).float()
        with weight_changes.scaled(model, lam):
            scaled = model(x)
    assert torch.equal(scaled, (start + lam * (tuned - start)).to(torch.bfloat16))


def test_activated_lora_is_scaled(zoo: Any) -> None:
    """With activated LoRA, scale multiplies the change after the invocation tokens."""
    tokens = zoo.tokenizer()(" cat")["input_ids"]
    model = make(zoo, "lora", alora_invocation_tokens=tokens)
    with HFBackend(model, zoo.tokenizer(), exactness="strict").as_scaled_adapter(0.5) as view:
        got = rolling(view)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data *= 0.5
    assert np.abs(got - tuned_values(zoo, model)).max() < 1e-4


class UnknownVariant(DoraLinearVariant):
    """A LoRA variant of a later PEFT."""


def test_unknown_variant_is_refused(zoo: Any) -> None:
    """Scaled and null views name the variant; the probes that need them are skipped with that."""
    model = make(zoo, "dora")
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.lora_variant["default"] = UnknownVariant()
    backend = HFBackend(model, zoo.tokenizer())
    for opened in (backend.as_null_adapter, backend.as_scaled_adapter):
        with pytest.raises(UnsupportedViewError, match="LoRA variant UnknownVariant"):
            opened(0)
    spec = SuiteSpec(
        version=1,
        model=ModelSpec(path="some-model", adapter="some-adapter"),
        probes=[
            NullAdapter(name="baseline"),
            DeltaKL(name="change", prompts=[PROMPT]),
            AdapterAblation(name="response", prompts=[PROMPT]),
        ],
    )
    result = run_suite(spec, backend)
    null, change, response = result.probes
    assert (null.verdict, response.verdict) == (Verdict.SKIP, Verdict.SKIP)
    assert "'null_1000' is not available" in null.message
    assert "UnknownVariant" in null.message
    assert "'scaled_0.0' is not available" in response.message
    assert change.verdict is Verdict.PASS
    assert result.backend_stats["forward_passes"] == result.expected_forward_passes


def test_saved_module_with_lora_layers_is_refused(zoo: Any) -> None:
    """A saved module that contains LoRA layers has no scaled and no null view."""
    model = make(zoo, "dora and head")
    with quiet_transformers():
        linear = torch.nn.Sequential(torch.nn.Linear(2, 2))
        inner = get_peft_model(linear, LoraConfig(target_modules=["0"]))
    model.base_model.model.lm_head.modules_to_save["default"].inner = inner
    refused = HFBackend(model, zoo.tokenizer()).refused_views
    assert refused.keys() == {"scaled", "null"}
    assert "a saved module contains LoRA layers" in refused["null"]


def test_longest_filler_fits_exactly(zoo: Any) -> None:
    """Filler of this length fits the model's context, and one token more does not."""
    backend = HFBackend(make(zoo, "lora"), zoo.tokenizer())
    longest = backend.longest_filler(PROMPT)
    assert longest is not None
    with backend.as_base() as view:
        view.next_token_dist(backend.filler(longest) + PROMPT)
        with pytest.raises(PromptError, match="more than the 64"):
            view.next_token_dist(backend.filler(longest + 1) + PROMPT)
    with pytest.raises(PromptError, match="more than the 64"):
        backend.longest_filler("the cat sat" * 64)


def test_no_filler_fits_a_full_context(zoo: Any) -> None:
    """A prompt as long as the context leaves no room for filler."""
    model = make(zoo, "lora")
    model.config.max_position_embeddings = len(zoo.tokenizer()(PROMPT)["input_ids"])
    assert HFBackend(model, zoo.tokenizer()).longest_filler(PROMPT) == 0


def test_prompt_collapse_fits_the_context(zoo: Any) -> None:
    """The default lengths are reduced to the model's context, as planned."""
    backend = HFBackend(make(zoo, "lora"), zoo.tokenizer())
    spec = SuiteSpec(
        version=1,
        model=ModelSpec(path="some-model", adapter="some-adapter"),
        probes=[PromptCollapse(name="long-context", prompts=[PROMPT])],
    )
    result = run_suite(spec, backend)
    [probe] = result.probes
    assert probe.verdict in (Verdict.PASS, Verdict.FAIL)
    assert probe.evidence["context_lengths"] == [0, backend.longest_filler(PROMPT)]
    assert "the most that fit the model's context" in probe.message
    assert result.backend_stats["forward_passes"] == result.expected_forward_passes
