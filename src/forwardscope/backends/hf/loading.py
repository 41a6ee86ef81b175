"""Load a backend from paths or hub ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from forwardscope.backends.hf.adapters import adapter_folder, attach, read_config
from forwardscope.backends.hf.backend import HFBackend
from forwardscope.backends.hf.checkpoints import check_finite, weight_files
from forwardscope.backends.hf.device import best_device
from forwardscope.backends.hf.forward import Exactness
from forwardscope.backends.hf.identity import sign_files
from forwardscope.backends.hf.load_errors import errors_as
from forwardscope.backends.hf.models import load_base, load_tuned, quiet_transformers
from forwardscope.backends.hf.origin import Origin
from forwardscope.backends.hf.pair import HFPairBackend
from forwardscope.backends.hf.trained_on import compare_base
from forwardscope.backends.hf.vocabulary import compare_ids, fit_vocabularies
from forwardscope.errors import AdapterError, ModelError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.text import printable

__all__ = ["ModelSource", "load_backend", "load_base", "quiet_transformers"]

_DTYPES = {
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
    """

    path: str
    adapter: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    tuned: str | None = None


def load_backend(
    source: ModelSource,
    *,
    exactness: Exactness = "fast",
    instrumentation: BackendInstrumentation | None = None,
) -> HFBackend | HFPairBackend:
    """Load a model and its adapter, or a model and its full fine-tune.

    No code from the model's repository is run, and weights are read only
    from safetensors or GGUF.

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
    instrumentation.spans.model = printable(source.path)
    if source.tuned is not None:
        return _load_pair(source, source.tuned, exactness, instrumentation)
    return _load_with_adapter(source, str(source.adapter), exactness, instrumentation)


def _load_with_adapter(
    source: ModelSource,
    adapter: str,
    exactness: Exactness,
    instrumentation: BackendInstrumentation,
) -> HFBackend:
    device = _device(source.device)
    dtype = _dtype(source.dtype, device)
    folder = adapter_folder(adapter)
    config = read_config(folder)
    adapter_files = tuple(sorted(folder.glob("adapter_*")))
    before = sign_files((*weight_files(source.path), *adapter_files))
    found: list[str] = []
    with quiet_transformers():
        base, tokenizer = load_base(source.path, dtype, warn=found.append)
        with errors_as(AdapterError, f"adapter {adapter} does not name its base in a valid way"):
            commit = getattr(base.config, "_commit_hash", None)
            found += compare_base(config, source.path, commit)
        attached = attach(base, tokenizer, folder, config)
    _move(attached.model, device)
    after = sign_files((*weight_files(source.path), *adapter_files))
    return HFBackend(
        attached.model,
        attached.tokenizer,
        instrumentation=instrumentation,
        exactness=exactness,
        origin=Origin(
            files=after if before == after else None,
            vocabulary=attached.vocabulary,
            warnings=(*found, *attached.warnings),
        ),
    )


def _load_pair(
    source: ModelSource,
    tuned: str,
    exactness: Exactness,
    instrumentation: BackendInstrumentation,
) -> HFPairBackend:
    device = _device(source.device)
    dtype = _dtype(source.dtype, device)
    before = [sign_files(weight_files(path)) for path in (source.path, tuned)]
    found: list[str] = []
    with quiet_transformers():
        base, tokenizer = load_base(source.path, dtype, warn=found.append)
        model, own_tokenizer = load_tuned(tuned, dtype, warn=found.append)
        if own_tokenizer is not None:
            found += compare_ids(own_tokenizer, tokenizer, "tuned model", tuned, ModelError)
            tokenizer = own_tokenizer
        vocabulary, warnings = fit_vocabularies(base, model, tokenizer)
    for path, one in ((source.path, base), (tuned, model)):
        _move(one, device)
        check_finite(path, one)
    after = [sign_files(weight_files(path)) for path in (source.path, tuned)]
    files, tuned_files = after if before == after else (None, None)
    return HFPairBackend(
        base,
        model,
        tokenizer,
        instrumentation=instrumentation,
        exactness=exactness,
        origin=Origin(files, tuned_files, vocabulary, (*found, *warnings)),
    )


def _move(model: Any, device: torch.device) -> None:
    with errors_as(ModelError, f"the model cannot be moved to device {device}"):
        model.to(device)


def _device(name: str) -> torch.device:
    if name == "auto":
        return best_device()
    with errors_as(ModelError, f"device {name!r} is unknown to torch"):
        return torch.device(name)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in _DTYPES:
        raise ModelError(f"dtype {name!r} is unknown; use auto or one of {', '.join(_DTYPES)}")
    return _DTYPES[name]
