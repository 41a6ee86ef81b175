"""Load a backend from paths or hub ids."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import modeling_gguf_pytorch_utils
from transformers.utils import logging as transformers_logging

from forwardscope.backends.hf.adapters import adapter_folder, attach, read_config
from forwardscope.backends.hf.backend import HFBackend
from forwardscope.backends.hf.checkpoints import check_checkpoint, weight_files
from forwardscope.backends.hf.device import best_device
from forwardscope.backends.hf.forward import Exactness
from forwardscope.backends.hf.identity import sign_files
from forwardscope.backends.hf.load_errors import errors_as, local_path
from forwardscope.backends.hf.origin import Origin
from forwardscope.backends.hf.trained_on import compare_base
from forwardscope.core.keys import printable
from forwardscope.errors import ModelError
from forwardscope.instrumentation import BackendInstrumentation

__all__ = ["ModelSource", "load_backend", "load_base", "quiet_transformers"]

_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Location, device and dtype of a model and its adapter.

    Attributes:
        path: A local folder, a `.gguf` file or a hub id.
        adapter: A local folder or a hub id with a LoRA adapter in safetensors.
        device: A torch device, or `auto`: cuda, else mps, else cpu.
        dtype: `float32`, `float16`, `bfloat16`, or `auto`: float32 on the CPU,
            bfloat16 elsewhere.
    """

    path: str
    adapter: str
    device: str = "auto"
    dtype: str = "auto"


def load_backend(
    source: ModelSource,
    *,
    exactness: Exactness = "fast",
    instrumentation: BackendInstrumentation | None = None,
) -> HFBackend:
    """Load a model and its adapter.

    No code from the model's repository is run, and weights are read only
    from safetensors or GGUF.

    Raises:
        ModelError: The model cannot be found, read or moved to the device.
        AdapterError: The adapter cannot be found or read, or does not fit the model.
    """
    device = _device(source.device)
    dtype = _dtype(source.dtype, device)
    adapter = adapter_folder(source.adapter)
    config = read_config(adapter)
    adapter_files = tuple(sorted(adapter.glob("adapter_*")))
    before = sign_files((*weight_files(source.path), *adapter_files))
    found: list[str] = []
    with quiet_transformers():
        base, tokenizer = load_base(source.path, dtype, warn=found.append)
        found += compare_base(config, source.path, getattr(base.config, "_commit_hash", None))
        attached = attach(base, tokenizer, adapter, config)
    with errors_as(ModelError, f"the model cannot be moved to device {device}"):
        attached.model.to(device)
    after = sign_files((*weight_files(source.path), *adapter_files))
    instrumentation = instrumentation or BackendInstrumentation()
    instrumentation.spans.model = printable(source.path)
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


def load_base(
    path: str,
    dtype: torch.dtype,
    report: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer, without an adapter.

    Args:
        path: A folder, a `.gguf` file or a hub id.
        dtype: Dtype of the weights in memory.
        report: For a GGUF file, called with the number of dequantised tensors
            and the number of all tensors.
        warn: Called with each warning about the model.

    Raises:
        ModelError: The model cannot be found or read, or its weights are incomplete.
    """
    local = local_path(path, ModelError, "model")
    options: dict[str, Any] = {"use_safetensors": True}
    if path.endswith(".gguf"):
        if not local.is_file():
            raise ModelError(f"model file {path} does not exist")
        where, options = str(local.parent), {"gguf_file": local.name}
    elif local.is_dir():
        if not (local / "config.json").is_file():
            raise ModelError(f"model folder {path} has no config.json; {_what_it_is(local)}")
        where = str(local)
    elif local.exists() or path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise ModelError(
            f"model path {path} is not a folder; give a folder, a .gguf file or a hub id"
        )
    else:
        where = path
    with errors_as(ModelError, f"model {path} cannot be loaded"), _gguf_progress(report):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            where, trust_remote_code=False, **_only(options, "gguf_file")
        )
        model, loaded = transformers.AutoModelForCausalLM.from_pretrained(
            where, dtype=dtype, trust_remote_code=False, output_loading_info=True, **options
        )
    for warning in check_checkpoint(path, model, loaded):
        if warn is not None:
            warn(warning)
    return model, tokenizer


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Suppress transformers' progress bars and log messages, and all warnings, in the context."""
    bars = transformers_logging.is_progress_bar_enabled()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def _gguf_progress(report: Callable[[int, int], None] | None) -> Iterator[None]:
    """Report dequantised tensors in place of transformers' bar, which cannot be disabled."""

    def reporting(tensors: Sequence[Any], **_: object) -> Iterator[Any]:
        for done, tensor in enumerate(tensors):
            if report is not None:
                report(done, len(tensors))
            yield tensor
        if report is not None:
            report(len(tensors), len(tensors))

    bar = modeling_gguf_pytorch_utils.tqdm
    modeling_gguf_pytorch_utils.tqdm = reporting
    try:
        yield
    finally:
        modeling_gguf_pytorch_utils.tqdm = bar


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


def _what_it_is(folder: Path) -> str:
    if (folder / "adapter_config.json").is_file():
        return (
            "it is an adapter; merge it into its base with merge_and_unload() and save the merged "
            "model"
        )
    return "is it a transformers model?"


def _only(options: dict[str, Any], name: str) -> dict[str, Any]:
    return {name: options[name]} if name in options else {}
