"""Load a backend from paths or hub ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from forwardscope.backends.hf.adapter_config import read_config
from forwardscope.backends.hf.adapters import adapter_folder, attach
from forwardscope.backends.hf.backend import HFBackend
from forwardscope.backends.hf.device import best_device
from forwardscope.backends.hf.forward import Exactness
from forwardscope.backends.hf.load_errors import errors_as
from forwardscope.backends.hf.model_files import find_model
from forwardscope.backends.hf.models import load_model, load_tokenizer, quiet_transformers
from forwardscope.backends.hf.origin import Origin
from forwardscope.backends.hf.pair import HFPairBackend
from forwardscope.backends.hf.placement import move
from forwardscope.backends.hf.remembered import sign
from forwardscope.backends.hf.trained_on import compare_base
from forwardscope.backends.hf.vocabulary import compare_ids, fit_vocabularies
from forwardscope.errors import AdapterError, ModelError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.text import printable

__all__ = ["ModelSource", "load_backend", "quiet_transformers"]

_MERGE: Final = "merge it into its base with merge_and_unload() and save the merged model"
_GIVE_AS_ADAPTER: Final = "give it as the adapter, not as the tuned model"
_DTYPES: Final = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Location, device and dtype of a model and its adapter or its full fine-tune.

    Exactly one of `adapter` and `tuned` is given.

    Attributes:
        path: A local folder, a `.gguf` file or a hub id.
        adapter: A local folder or a hub id with a LoRA adapter in safetensors.
        device: A torch device, or `auto`: cuda, else mps, else cpu.
        dtype: `float32`, `float16`, `bfloat16`, or `auto`: float32 on the CPU,
            bfloat16 elsewhere.
        tuned: A local folder, a `.gguf` file or a hub id of a fully fine-tuned
            model, in place of an adapter.
        one_at_a_time: With `tuned`: whether one model is on the device at a time also
            where both would fit.
    """

    path: str
    adapter: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    tuned: str | None = None
    one_at_a_time: bool = False


def load_backend(
    source: ModelSource,
    *,
    exactness: Exactness = "fast",
    instrumentation: BackendInstrumentation | None = None,
    rehash: bool = False,
    check: bool = True,
) -> HFBackend | HFPairBackend:
    """Load a model and its adapter, or a model and its full fine-tune.

    No code from the model's repository is run, and weights are read only
    from safetensors or GGUF.

    Args:
        source: What to load.
        exactness: As in `HFBackend`.
        instrumentation: Caches, counts and traces lookups; a new one by default.
        rehash: Whether identities are computed from the weights also where the digest of
            files that did not change is remembered.
        check: As in `HFBackend`. Without it, loading runs no forward pass.

    Returns:
        An `HFBackend` for an adapter, an `HFPairBackend` for a full fine-tune.

    Raises:
        ModelError: A model cannot be found, read or moved to the device, or the
            tuned model cannot be compared with the base. Or neither or both of
            `adapter` and `tuned` are given.
        AdapterError: The adapter cannot be found or read, or does not fit the model.
    """
    if (source.adapter is None) == (source.tuned is None):
        raise ModelError("give either an adapter or a tuned model, not both")
    instrumentation = instrumentation or BackendInstrumentation()
    adapted = printable(source.adapter or source.tuned or "")
    instrumentation.name_model(printable(source.path), adapted, "huggingface")
    load = _load_with_adapter if source.tuned is None else _load_pair
    with quiet_transformers():
        return load(source, exactness, instrumentation, rehash, check)


def _load_with_adapter(
    source: ModelSource,
    exactness: Exactness,
    instrumentation: BackendInstrumentation,
    rehash: bool,
    check: bool,
) -> HFBackend:
    adapter = str(source.adapter)
    device, dtype = _device_and_dtype(source)
    folder = adapter_folder(adapter)
    config, found = read_config(folder)
    files = find_model(source.path, _MERGE)
    signed = sign(files.weights), sign(sorted(folder.glob("adapter_*")))
    tokenizer = load_tokenizer(files)
    base = load_model(files, dtype, warn=found.append)
    found += compare_base(config, files)
    attached = attach(base, tokenizer, folder, config)
    move(attached.model, device)
    base_files, own_files = (one and one.if_unchanged() for one in signed)
    warnings = (*found, *attached.warnings)
    origin = Origin(base_files, own_files, attached.vocabulary, warnings, rehash)
    with errors_as(AdapterError, f"adapter {adapter} cannot be used with {source.path}"):
        return HFBackend(
            attached.model,
            attached.tokenizer,
            instrumentation=instrumentation,
            exactness=exactness,
            origin=origin,
            check=check,
        )


def _load_pair(
    source: ModelSource,
    exactness: Exactness,
    instrumentation: BackendInstrumentation,
    rehash: bool,
    check: bool,
) -> HFPairBackend:
    tuned = str(source.tuned)
    device, dtype = _device_and_dtype(source)
    found: list[str] = []
    both = find_model(source.path, _MERGE), find_model(tuned, _GIVE_AS_ADAPTER)
    signed = [sign(files.weights) for files in both]
    tokenizer = load_tokenizer(both[0])
    base, model = (load_model(files, dtype, warn=found.append) for files in both)
    if both[1].has_tokenizer:
        own = load_tokenizer(both[1])
        found += compare_ids(own, tokenizer, "tuned model", tuned, ModelError)
        tokenizer = own
    vocabulary, warnings = fit_vocabularies(base, model, tokenizer)
    base_files, own_files = (one and one.if_unchanged() for one in signed)
    origin = Origin(base_files, own_files, vocabulary, (*found, *warnings), rehash)
    with errors_as(ModelError, f"tuned model {tuned} cannot be used with {source.path}"):
        return HFPairBackend(
            base,
            model,
            tokenizer,
            instrumentation=instrumentation,
            exactness=exactness,
            origin=origin,
            device=device,
            one_at_a_time=source.one_at_a_time,
            check=check,
        )


def _device_and_dtype(source: ModelSource) -> tuple[torch.device, torch.dtype]:
    device = _device(source.device)
    return device, _dtype(source.dtype, device)


def _device(name: str) -> torch.device:
    if name == "auto":
        return best_device()
    with errors_as(ModelError, f"device {name!r} is unknown to torch"):
        device = torch.device(name)
    if device.type == "meta":
        raise ModelError("device 'meta' computes nothing; give auto, cpu or an accelerator")
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in _DTYPES:
        raise ModelError(f"dtype {name!r} is unknown; use auto or one of {', '.join(_DTYPES)}")
    return _DTYPES[name]
