"""The tokenizer and the vocabulary of a base model and of its adapter or tuned model.

Both models read a prompt with one tokenizer: that of the adapter or the tuned
model where its folder has one, otherwise the base's. Where the vocabulary was
resized, the base is resized as PEFT's guide does. The added rows are left out of
the base's distribution.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig

from forwardscope.backends.hf import compat
from forwardscope.backends.hf.chats import read_template
from forwardscope.backends.hf.load_errors import Kind, errors_as, some
from forwardscope.backends.hf.model_files import has_vocabulary
from forwardscope.errors import AdapterError
from forwardscope.text import plural

__all__ = [
    "Vocabulary",
    "adapter_tokenizer",
    "compare_ids",
    "fit_vocabularies",
    "fit_vocabulary",
]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Number of tokens in a whole distribution.

    Attributes:
        base: Of the base model.
        tuned: Of the fine-tuned model.
    """

    base: int
    tuned: int


def adapter_tokenizer(folder: Path, base: Any, own: Any) -> tuple[Any, list[str]]:
    """Return the tokenizer for both models, and warnings.

    Args:
        folder: Folder of the adapter.
        base: The base model.
        own: The base model's tokenizer.

    Raises:
        AdapterError: The adapter's tokenizer cannot be read, or has other ids
            for most tokens of the base's.
    """
    if not has_vocabulary(folder):
        read_template(folder, own)
        return own, []
    with errors_as(AdapterError, f"the tokenizer of adapter {folder} cannot be loaded"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(folder), config=base.config, trust_remote_code=False
        )
    return tokenizer, compare_ids(tokenizer, own, "adapter", str(folder), AdapterError)


def compare_ids(tokenizer: Any, own: Any, what: str, path: str, kind: Kind) -> list[str]:
    """Compare the ids of the base's tokens in two tokenizers; return warnings.

    Args:
        tokenizer: The tokenizer of the adapter or the tuned model.
        own: The base model's tokenizer.
        what: `adapter` or `tuned model`, for messages.
        path: Path of the adapter or the tuned model, for messages.
        kind: Class of the error.

    Raises:
        kind: Most tokens of the base have other ids.
    """
    vocab, base_vocab = tokenizer.get_vocab(), own.get_vocab()
    moved = [token for token, index in base_vocab.items() if vocab.get(token) != index]
    if 2 * len(moved) > len(base_vocab):
        raise kind(
            f"the tokenizer of {what} {path} has other ids for most tokens of the base's "
            f"({len(moved)} of {len(base_vocab)}), so their distributions cannot be compared; was "
            "it saved with another model?"
        )
    if moved:
        return [
            f"the {what}'s tokenizer, which is used for base and tuned, has other ids for "
            f"{plural(len(moved), 'token')} of the base's: {some(moved)}"
        ]
    return []


def fit_vocabulary(
    base: Any, tensors: dict[str, torch.Tensor], config: LoraConfig, tokenizer: Any
) -> tuple[Vocabulary, list[str]]:
    """Resize a base model and an adapter's tensors to the larger vocabulary of both.

    A row that is added to the base has the value that the adapter's file has of
    the base's embeddings, otherwise the mean of the base's rows. A row that is
    added to the adapter's embeddings is 0.

    Args:
        base: The base model, changed in place.
        tensors: The adapter's tensors by key; embeddings are replaced.
        config: The adapter's config.
        tokenizer: The tokenizer of both models.

    Returns:
        The vocabularies and warnings.

    Raises:
        AdapterError: The adapter trains a token that neither model nor tokenizer has.
    """
    layers = _embeddings(base)
    size = compat.output_rows(base)
    rows = {key: dim for key in tensors if (dim := _row_dimension(key, layers)) is not None}
    tuned = max((tensors[key].shape[dim] for key, dim in rows.items()), default=size)
    trained = _trained_tokens(config)
    if max(trained, default=-1) >= max(size, tuned):  # the adapter's file has no embeddings
        if max(trained) >= len(tokenizer):
            raise AdapterError(
                f"the adapter trains token {max(trained)}, but its tokenizer has {len(tokenizer)} "
                "tokens; was its tokenizer saved with it?"
            )
        tuned = len(tokenizer)
    if tuned > size:
        _grow(base, size, tuned, tensors, config.modules_to_save or ())
    for key, dim in rows.items():
        tensors[key] = _padded(tensors[key], dim, max(size, tuned))
    embeddings = int(base.get_input_embeddings().weight.shape[0])
    vocabulary = Vocabulary(size, tuned)
    return vocabulary, _warnings(vocabulary, embeddings, tokenizer, "adapter")


def fit_vocabularies(base: Any, tuned: Any, tokenizer: Any) -> tuple[Vocabulary, list[str]]:
    """Resize a base model where its tuned model has more tokens.

    An added row has the mean of the base's rows.

    Args:
        base: The base model, changed in place.
        tuned: The tuned model.
        tokenizer: The tokenizer of both models.

    Returns:
        The vocabularies and warnings.
    """
    size, new = compat.output_rows(base), compat.output_rows(tuned)
    if new > size:
        _grow(base, size, new, {}, ())
    vocabulary = Vocabulary(size, new)
    return vocabulary, _warnings(vocabulary, new, tokenizer, "tuned model")


def _warnings(vocabulary: Vocabulary, embeddings: int, tokenizer: Any, what: str) -> list[str]:
    """Return warnings on sizes that differ and on tokens that have none of the `embeddings`."""
    found = []
    if vocabulary.tuned != vocabulary.base:
        found.append(
            f"the {what}'s vocabulary has {vocabulary.tuned} tokens and the base's "
            f"{vocabulary.base}; each distribution has the tokens of its own model"
        )
    if lost := [token for token, index in tokenizer.get_vocab().items() if index >= embeddings]:
        found.append(
            f"the tokenizer has {plural(len(lost), 'token')} without an embedding: {some(lost)}; "
            "prompts with one are refused"
        )
    return found


def _embeddings(base: Any) -> dict[str, Any]:
    """Return the input and output embeddings by the last part of their names."""
    layers = (base.get_input_embeddings(), base.get_output_embeddings())
    return {
        name.rpartition(".")[2]: module
        for name, module in base.named_modules()
        if any(module is layer for layer in layers)
    }


def _row_dimension(key: str, layers: Mapping[str, Any]) -> int | None:
    """Return the dimension of an adapter's tensor that has one entry for each token."""
    parts = key.split(".")
    layer = next((layers[part] for part in parts if part in layers), None)
    if layer is None:
        return None
    if parts[-1] == "lora_embedding_A":
        return 1
    is_input = isinstance(layer, torch.nn.Embedding)
    if "lora_" in key:
        of_output = "lora_B" in parts or "lora_magnitude_vector" in parts
        return 0 if of_output and not is_input else None
    return 0 if parts[-1] in ("weight", "bias") else None


def _trained_tokens(config: LoraConfig) -> list[int]:
    indices = compat.lora_setting(config, "trainable_token_indices") or []
    if isinstance(indices, dict):
        return [index for layer in indices.values() for index in layer]
    return list(indices)


def _grow(
    base: Any,
    size: int,
    new: int,
    tensors: Mapping[str, torch.Tensor],
    modules_to_save: Collection[str],
) -> None:
    """Add rows to the base's embeddings. PEFT keeps the original of a saved module by its own."""
    base.resize_token_embeddings(new, mean_resizing=False)
    for name, module in _embeddings(base).items():
        endings = ["original_module.weight", "base_layer.weight"]
        if name not in modules_to_save:
            endings.append(f"{name}.weight")
        saved = [
            tensors[key]
            for ending in endings
            for key in tensors
            if f".{name}." in key and key.endswith(f".{ending}")
        ]
        weight = module.weight.data
        fits = bool(saved) and saved[0].shape == weight.shape
        # the mean of the CPU, on which a base is where an adapter is loaded with it
        weight[size:] = saved[0][size:] if fits else weight[:size].cpu().mean(0)


def _padded(tensor: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    shape = list(tensor.shape)
    shape[dim] = size - shape[dim]
    return torch.cat([tensor, tensor.new_zeros(shape)], dim) if shape[dim] else tensor
