"""The identity of a view: a digest of everything that determines its values, and of nothing else.

A view's identity is the digest of its *parts*, each of which is a digest or a short text
with a name. Views of equal identity have equal values, also in another folder, run or
backend. So a part is in a view's identity only where it can change the view's values:

- base: the weights, config and tokenizer of the base, and what computes them;
- ft: all that, and the adapter; scaled: all that, and the scale;
- null: the parts of base, and the shape of the adapter's factors, their scaling and dtype,
  and the seed. A null view keeps no trained value of the adapter.

The fine-tuned model of a pair is a model of its own: its view has the identity of a base.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from peft import PeftModel

from forwardscope.backends.digests import digest_of
from forwardscope.backends.hf import compat
from forwardscope.backends.hf.adapter_config import WITHOUT_EFFECT
from forwardscope.backends.hf.config_digest import cleaned, config_digest
from forwardscope.backends.hf.environment import foreign_code, quantisers
from forwardscope.backends.hf.origin import Origin
from forwardscope.backends.hf.remembered import SignedFiles, remembered
from forwardscope.backends.hf.tensor_digests import digest_of_tensors
from forwardscope.backends.hf.tokenizer_digest import tokenizer_digest
from forwardscope.backends.hf.vocabulary import Vocabulary
from forwardscope.backends.hf.weight_changes import keeps_variant, null_shape, scalings
from forwardscope.backends.hf.weight_digests import (
    adapter_tensors,
    added_rows,
    base_tensors,
    digest_of_files,
)
from forwardscope.backends.views import BASE, FINETUNED, scaled_view_id

__all__ = [
    "NUMERICS",
    "OTHER_CODE",
    "UNKNOWN_CODE",
    "Parts",
    "Reading",
    "ViewParts",
    "identity_of",
    "parts_of_adapter",
    "parts_of_pair",
]

#: Version of this package's numerics. Raise it with each change after which a view gives
#: another value, be it in the last bit, for the same weights and prompt.
NUMERICS: Final = 1
#: Part that names the packages of a model's further modules, and its value where one is unknown.
OTHER_CODE: Final = "other code"
UNKNOWN_CODE: Final = "unknown"

#: Parts of an identity by name. A value is a digest or a short text.
Parts = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ViewParts:
    """The parts of all identities of a backend, except what computes the values.

    Attributes:
        views: By view id.
        families: Of views with a parameter in their ids, by family.
    """

    views: Mapping[str, Parts]
    families: Mapping[str, Parts]

    def of(self, view_id: str) -> Parts:
        """Return the parts of a view; empty for one that cannot be opened."""
        if view_id in self.views:
            return self.views[view_id]
        family, _, parameter = view_id.partition("_")
        if not parameter or family not in self.families:
            return {}
        return {**self.families[family], "view parameter": parameter}


@dataclass(frozen=True, slots=True)
class Reading:
    """How a backend reads prompts and weights, the same for all its views.

    Attributes:
        tokenizer: The tokenizer.
        exactness: `fast` or `strict`.
        rehash: Whether to digest weights also where their digest is remembered.
    """

    tokenizer: Any
    exactness: str
    rehash: bool


def identity_of(parts: Parts) -> str:
    """Return the identity of a view with these parts: 64 hex digits."""
    return digest_of(dict(parts))


def parts_of_adapter(
    model: PeftModel,
    origin: Origin,
    reading: Reading,
    aliases: Mapping[float, str],
    refused: Container[str],
) -> ViewParts:
    """Return the parts of the views of a base and its adapter.

    Args:
        model: The base with the adapter, with no view's change applied.
        origin: What they were loaded from.
        reading: How they are read.
        aliases: Scales that open another view.
        refused: Families of views that cannot be opened.
    """
    rows = compat.output_rows(model)
    vocabulary = origin.vocabulary or Vocabulary(rows, rows)
    base = _of_model(model, origin.files, vocabulary.base, reading)
    tuned = {**base, **_of_adapter(model, origin, vocabulary, reading)}
    views = {BASE: base, FINETUNED: tuned}
    families = {"scaled": tuned, "null": {**base, **_of_null(model, tuned)}}
    return ViewParts(
        views | {scaled_view_id(scale): views[view] for scale, view in aliases.items()},
        {family: parts for family, parts in families.items() if family not in refused},
    )


def parts_of_pair(base: Any, tuned: Any, origin: Origin, reading: Reading) -> ViewParts:
    """Return the parts of the views of a base and its tuned model, loaded from an origin."""
    rows = compat.output_rows(base), compat.output_rows(tuned)
    vocabulary = origin.vocabulary or Vocabulary(*rows)
    return ViewParts(
        {
            BASE: _of_model(base, origin.files, vocabulary.base, reading),
            FINETUNED: _of_model(tuned, origin.tuned_files, vocabulary.tuned, reading),
        },
        {},
    )


def _of_model(model: Any, files: SignedFiles | None, rows: int, reading: Reading) -> Parts:
    """Return the parts of a model of `rows` tokens of its own, without its adapter."""
    plain = compat.unwrapped(model)
    parts = {
        "model weights": _model_weights(model, files, rows, reading),
        "model config": _config_of(plain, rows),
        "attention implementation": compat.attention(plain),
        "experts implementation": compat.experts(plain),
        "dtype": str(plain.dtype).removeprefix("torch."),
        "tokenizer": tokenizer_digest(reading.tokenizer),
        "vocabulary": str(rows),
        "exactness": reading.exactness,
        "quantisers": quantisers() if compat.is_quantised(plain) else "",
        OTHER_CODE: UNKNOWN_CODE if (code := foreign_code(plain)) is None else code,
        "numerics version": str(NUMERICS),
    }
    computed = compat.output_rows(plain)
    if computed > rows:
        if reading.exactness == "strict":  # a kernel may divide larger products differently
            parts["computed vocabulary"] = str(computed)
        if max(reading.tokenizer.get_vocab().values()) >= rows:
            parts["added tokens"] = digest_of_tensors(added_rows(model, rows, output=False))
    return {name: value for name, value in parts.items() if value}


def _of_adapter(
    model: PeftModel, origin: Origin, vocabulary: Vocabulary, reading: Reading
) -> Parts:
    """Return the parts of ft that base does not have."""

    def weights() -> str:
        added = added_rows(model, vocabulary.base, output=True)
        return digest_of_tensors([*adapter_tensors(model), *added])

    config = model.peft_config[model.active_adapter].to_dict()
    effective = {key: value for key, value in config.items() if key not in WITHOUT_EFFECT}
    settings = digest_of([cleaned(effective), scalings(model)])
    key = [*_load_key(model, vocabulary.base), compat.output_rows(model), settings]
    return {
        "adapter weights": _remembered(
            (origin.files, origin.tuned_files), key, weights, reading.rehash
        ),
        "adapter config": settings,
        "adapter vocabulary": str(vocabulary.tuned),
        "peft": version("peft"),
    }


def _of_null(model: PeftModel, tuned: Parts) -> Parts:
    """Return the parts of null views that base does not have."""
    kept = ["peft", *(["adapter weights", "adapter config"] if keeps_variant(model) else [])]
    return {"adapter shape": digest_of(null_shape(model)), **{name: tuned[name] for name in kept}}


def _model_weights(model: Any, files: SignedFiles | None, rows: int, reading: Reading) -> str:
    def compute() -> str:
        if compat.is_quantised(model) and files is not None and files.if_unchanged():
            return digest_of_files(files.paths)
        return digest_of_tensors(base_tensors(model, rows))

    return _remembered((files,), _load_key(model, rows), compute, reading.rehash)


def _remembered(
    files: Sequence[SignedFiles | None],
    key: Sequence[object],
    compute: Callable[[], str],
    rehash: bool,
) -> str:
    """Return a digest of weights that were loaded from files, remembered where they are known."""
    signatures = [one.signature for one in files if one is not None]
    if len(signatures) < len(files):
        return compute()
    return remembered([signatures, key], compute, rehash)


def _load_key(model: Any, rows: int) -> list[object]:
    """Return all but the files that decides which weights of a base are in memory."""
    plain = compat.unwrapped(model)
    versions = [version(name) for name in ("torch", "transformers", "peft", "gguf")]
    quantised = quantisers() if compat.is_quantised(plain) else ""
    return [_config_of(plain, rows), str(plain.dtype), rows, versions, quantised]


def _config_of(model: Any, rows: int) -> str:
    """Return the digest of a model's config as it was before the model was resized."""
    return config_digest(model, {compat.output_rows(model): rows})
