"""Names of transformers and PEFT that differ between releases, models or adapters.

Every argument, output attribute, class and config key that this backend looks up
by name is here, in each of its spellings. Optional features report a missing name
as a reason; they are never skipped without one.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib.metadata import version
from typing import Any, Final

import torch

__all__ = [
    "CACHE_NAMES",
    "ForwardArguments",
    "States",
    "attention",
    "cache_of",
    "check_names",
    "computed_cache",
    "context_length",
    "experts",
    "forward_arguments",
    "gguf_bar",
    "invocation_tokens",
    "is_quantised",
    "layers_are_typed",
    "lora_setting",
    "output_rows",
    "pad_token",
    "plain_states",
    "rotary_limit",
    "text_config",
    "unsupported_cache",
    "unwrapped",
    "windows",
]

#: The cache of keys and values: argument of `forward` and attribute of its output.
#: transformers 5.24 renamed the first to the second.
CACHE_NAMES: Final = ("past_key_values", "cache")
_LOGITS_TO_KEEP: Final = "logits_to_keep"
_USE_CACHE: Final = "use_cache"

_CACHE_MODULE: Final = "transformers.cache_utils"
_CACHE_CLASS: Final = "DynamicCache"
_LAYER_CLASS: Final = "DynamicLayer"
#: Words in the names of other cache layers, and what a model with such layers keeps.
_OTHER_LAYERS: Final = {
    "LinearAttention": "a recurrent state",
    "Sliding": "a sliding window",
}

#: Config keys of an attention window, in tokens.
_WINDOWS: Final = (
    "sliding_window",
    "sliding_window_size",
    "window_size",
    "attention_window",
    "attention_window_size",
    "attention_chunk_size",
)
_POSITIONS: Final = "embeddings.position_embeddings"
_LAYER_TYPES: Final = "layer_types"
_CONTEXT: Final = "max_position_embeddings"
_PADDING: Final = "pad_token_id"
_ROPE: Final = "rope_parameters"
_ROPE_TYPE: Final = "rope_type"
_ROPE_ORIGINAL: Final = "original_max_position_embeddings"
#: Rotary embeddings whose frequencies change with the length of the prompt.
_ROPES_OF_LENGTH: Final = ("dynamic", "longrope")
_INVOCATION: Final = "alora_invocation_tokens"
#: Settings of a LoRA adapter that not every release of PEFT has.
_LORA_SETTINGS: Final = (
    _INVOCATION,
    "bias",
    "init_lora_weights",
    "kasa_config",
    "layer_replication",
    "trainable_token_indices",
)
_ATTENTION: Final = "_attn_implementation"
_EXPERTS: Final = "_experts_implementation"
_QUANTISATION: Final = "quantization_config"
_METHOD: Final = "quant_method"
#: The bar that transformers draws while it dequantises a GGUF file.
_GGUF_MODULE: Final = "transformers.modeling_gguf_pytorch_utils"
_GGUF_BAR: Final = "tqdm"

#: Keys and values of each layer, shape (batch, heads, tokens, head size).
States = Sequence[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class ForwardArguments:
    """Optional arguments that a model's `forward` accepts.

    Attributes:
        cache: Name of the argument for the cache of keys and values, or None.
        logits_to_keep: Whether the model can compute the logits of some positions alone.
        use_cache: Whether the model can be asked to return its cache.
    """

    cache: str | None
    logits_to_keep: bool
    use_cache: bool


def unwrapped(model: Any) -> Any:
    """Return the transformers model below PEFT's wrapper, if there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def forward_arguments(model: Any) -> ForwardArguments:
    """Return which optional arguments the forward method of a model accepts."""
    accepted = inspect.signature(unwrapped(model).forward).parameters
    passes_on = any(one.kind is one.VAR_KEYWORD for one in accepted.values())
    return ForwardArguments(
        cache=next((name for name in CACHE_NAMES if name in accepted), None),
        logits_to_keep=_LOGITS_TO_KEEP in accepted,
        use_cache=_USE_CACHE in accepted or passes_on,
    )


def computed_cache(output: Any) -> Any | None:
    """Return the cache that a model's output has, or None."""
    found = (getattr(output, name, None) for name in CACHE_NAMES)
    return next((cache for cache in found if cache is not None), None)


def unsupported_cache(cache: Any, tokens: int) -> str | None:
    """Return why a cache of `tokens` tokens cannot be cut to a prefix, or None if it can.

    Only a cache that has the keys and values of each token in each layer can be cut.
    """
    cache_class, layer_class = (_find(_CACHE_MODULE, one) for one in (_CACHE_CLASS, _LAYER_CLASS))
    if cache_class is None or layer_class is None:
        return f"transformers {version('transformers')} has no {_CACHE_CLASS} or {_LAYER_CLASS}"
    if cache is None:
        return "this model returns no cache of keys and values"
    if type(cache) is not cache_class:
        return f"this model keeps a {type(cache).__name__}"
    for layer in cache.layers:
        name = type(layer).__name__
        if type(layer) is not layer_class:
            kept = next((kept for word, kept in _OTHER_LAYERS.items() if word in name), f"a {name}")
            return f"this model keeps {kept}"
        if not _is_whole(layer, tokens):
            return "this model does not keep the keys and values of each token in each layer"
    return None


def _is_whole(layer: Any, tokens: int) -> bool:
    """Whether a layer has the keys and values of all tokens, in shapes that can be cut."""
    pair = (layer.keys, layer.values)
    return all(
        isinstance(one, torch.Tensor) and one.dim() == 4 and one.shape[-2] == tokens for one in pair
    )


def plain_states(cache: Any) -> States:
    """Return the keys and values of a cache that `unsupported_cache` accepts."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def cache_of(states: States) -> Any:
    """Return a transformers cache with these keys and values."""
    cache_class: Any = _find(_CACHE_MODULE, _CACHE_CLASS)
    return cache_class(states)


def text_config(model: Any) -> Any:
    """Return the config of a model's text part."""
    return model.config.get_text_config()


def context_length(model: Any) -> int | None:
    """Return the maximum number of tokens of a prompt, or None where the config names none."""
    length = getattr(text_config(model), _CONTEXT, None)
    if not isinstance(length, int) or length <= 0:
        return None
    return length - _first_position(unwrapped(model))


def _first_position(model: Any) -> int:
    """Return the position of a prompt's first token: 0, or after the padding's in RoBERTa."""
    for name, module in model.named_modules():
        if name.endswith(_POSITIONS) and getattr(module, "padding_idx", None) is not None:
            return int(module.padding_idx) + 1
    return 0


def windows(config: Any) -> list[int]:
    """Return the lengths of a config's attention windows, in tokens."""
    values = (getattr(config, name, None) for name in _WINDOWS)
    flat = (one for value in values for one in (value if isinstance(value, list) else [value]))
    return [one for one in flat if isinstance(one, int) and one > 0]


def layers_are_typed(config: Any) -> bool:
    """Whether a config names the kind of each layer, which the cache's layers then follow."""
    return bool(getattr(config, _LAYER_TYPES, None))


def pad_token(model: Any) -> int | None:
    """Return the token that a model's config names as padding."""
    token: int | None = getattr(text_config(model), _PADDING, None)
    return token


def rotary_limit(model: Any) -> int | None:
    """Return up to how many tokens a prompt's length does not change its rotary embedding.

    None means that it never does.
    """
    found = [
        one.get(_ROPE_ORIGINAL) or context_length(model) or 0
        for one in _ropes(getattr(text_config(model), _ROPE, None))
        if one.get(_ROPE_TYPE) in _ROPES_OF_LENGTH
    ]
    return min(found, default=None)


def _ropes(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield a model's rotary settings: one mapping, or one for each kind of layer."""
    if isinstance(value, Mapping):
        yield value
        for part in value.values():
            yield from _ropes(part)


def invocation_tokens(model: Any) -> list[int]:
    """Return the tokens that activate the model's adapter; empty for other adapters."""
    configs = getattr(model, "peft_config", {})
    config = configs.get(getattr(model, "active_adapter", None))
    return list(lora_setting(config, _INVOCATION) or [])


def lora_setting(config: Any, name: str) -> Any | None:
    """Return a setting of an adapter's config, or None where PEFT or the adapter has none.

    Raises:
        KeyError: The name is not among those that `check_names` checks.
    """
    if name not in _LORA_SETTINGS:
        raise KeyError(name)
    return getattr(config, name, None)


def attention(model: Any) -> str:
    """Return the name of a model's attention implementation, which determines its values.

    Raises:
        AttributeError: transformers has renamed it; without it no identity is right.
    """
    return str(getattr(model.config, _ATTENTION))


def experts(model: Any) -> str:
    """Return the name of a mixture's implementation of experts; empty where there is none."""
    return str(getattr(model.config, _EXPERTS, None) or "")


def is_quantised(model: Any) -> bool:
    """Whether a model computes with quantised weights; those of a GGUF file are dequantised."""
    config = getattr(model.config, _QUANTISATION, None)
    if not config:
        return False
    method = config.get(_METHOD) if isinstance(config, dict) else getattr(config, _METHOD, None)
    return getattr(method, "value", method) != "gguf"


def output_rows(model: Any) -> int:
    """Return for how many tokens a model computes logits."""
    return int(model.get_output_embeddings().weight.shape[0])


@contextmanager
def gguf_bar(bar: Callable[..., object]) -> Iterator[None]:
    """Replace the bar that transformers draws for a GGUF file, which cannot be disabled.

    A release without it draws none, which `check_names` reports.
    """
    try:
        module = importlib.import_module(_GGUF_MODULE)
        previous = getattr(module, _GGUF_BAR)
    except (ImportError, AttributeError):
        yield
        return
    setattr(module, _GGUF_BAR, bar)
    try:
        yield
    finally:
        setattr(module, _GGUF_BAR, previous)


def check_names() -> list[str]:
    """Return one sentence for each name that the installed transformers or PEFT lacks."""
    installed = f"transformers {version('transformers')}"
    missing = [
        f"{installed} has no {_CACHE_MODULE}.{name}; prefixes are not shared"
        for name in (_CACHE_CLASS, _LAYER_CLASS)
        if _find(_CACHE_MODULE, name) is None
    ]
    llama = _find("transformers", "LlamaForCausalLM")
    accepted = inspect.signature(llama.forward).parameters if llama is not None else {}
    if not any(name in accepted for name in CACHE_NAMES):
        missing.append(
            f"{installed} names the cache none of {', '.join(CACHE_NAMES)}; prefixes are not shared"
        )
    if _LOGITS_TO_KEEP not in accepted:
        missing.append(f"{installed} has no {_LOGITS_TO_KEEP}; all positions' logits are computed")
    config_class = _find("transformers", "PreTrainedConfig")
    if not hasattr(config_class, _ATTENTION):
        missing.append(f"{installed} has no config.{_ATTENTION}; identities cannot be computed")
    if _find(_GGUF_MODULE, _GGUF_BAR) is None:
        missing.append(f"{installed} has no {_GGUF_MODULE}.{_GGUF_BAR}; its bar is not replaced")
    from peft import LoraConfig  # noqa: PLC0415 - takes seconds, and is not needed for a plain model

    known = {field.name for field in fields(LoraConfig)}
    missing += [
        f"peft {version('peft')} has no LoraConfig.{name}; adapters with it are not recognised"
        for name in _LORA_SETTINGS
        if name not in known
    ]
    return missing


def _find(module: str, name: str) -> Any | None:
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
