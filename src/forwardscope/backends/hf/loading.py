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
from huggingface_hub import snapshot_download
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import modeling_gguf_pytorch_utils
from transformers.utils import logging as transformers_logging

from forwardscope.backends.hf.backend import HFBackend
from forwardscope.backends.hf.device import best_device
from forwardscope.backends.hf.forward import Exactness
from forwardscope.core.keys import printable
from forwardscope.errors import AdapterError, ModelError
from forwardscope.instrumentation import BackendInstrumentation

__all__ = ["ModelSource", "load_backend", "load_base", "quiet_transformers"]

_ADAPTER_WEIGHTS = "adapter_model.safetensors"
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
    adapter = _adapter_folder(source.adapter)
    with quiet_transformers():
        base, tokenizer = load_base(source.path, dtype)
        model = _attach(base, adapter)
    with _errors_as(ModelError, f"the model cannot be moved to device {device}"):
        model.to(device)
    instrumentation = instrumentation or BackendInstrumentation()
    instrumentation.spans.model = printable(source.path)
    return HFBackend(
        model,
        tokenizer,
        instrumentation=instrumentation,
        exactness=exactness,
        files=(*_weight_files(source.path), *sorted(adapter.glob("adapter_*"))),
    )


def load_base(
    path: str, dtype: torch.dtype, report: Callable[[int, int], None] | None = None
) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer, without an adapter.

    Args:
        path: A folder, a `.gguf` file or a hub id.
        dtype: Dtype of the weights in memory.
        report: For a GGUF file, called with the number of dequantised tensors
            and the number of all tensors.

    Raises:
        ModelError: The model cannot be found or read.
    """
    local = _local_path(path, ModelError, "model")
    options: dict[str, Any] = {"use_safetensors": True}
    if path.endswith(".gguf"):
        if not local.is_file():
            raise ModelError(f"model file {path} does not exist")
        where, options = str(local.parent), {"gguf_file": local.name}
    elif local.is_dir():
        if not (local / "config.json").is_file():
            raise ModelError(f"model folder {path} has no config.json; is it a transformers model?")
        where = str(local)
    elif local.exists() or path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise ModelError(
            f"model path {path} is not a folder; give a folder, a .gguf file or a hub id"
        )
    else:
        where = path
    with _errors_as(ModelError, f"model {path} cannot be loaded"), _gguf_progress(report):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            where, trust_remote_code=False, **_only(options, "gguf_file")
        )
        model = transformers.AutoModelForCausalLM.from_pretrained(
            where, dtype=dtype, trust_remote_code=False, **options
        )
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
    with _errors_as(ModelError, f"device {name!r} is unknown to torch"):
        return torch.device(name)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in _DTYPES:
        raise ModelError(f"dtype {name!r} is unknown; use auto or one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _local_path(path: str, kind: type[ModelError | AdapterError], what: str) -> Path:
    """Return a path with its `~` expanded; raise `kind` if the file system rejects it."""
    with _errors_as(kind, f"{what} {path[:80]} is not a valid path"):
        local = Path(path).expanduser()
        local.exists()
    return local


def _adapter_folder(adapter: str) -> Path:
    folder = _local_path(adapter, AdapterError, "adapter")
    if not folder.is_dir():
        if folder.exists() or adapter.startswith((".", "/", "~")) or adapter.count("/") != 1:
            raise AdapterError(f"adapter folder {adapter} does not exist")
        with _errors_as(AdapterError, f"adapter {adapter} is neither a folder nor downloadable"):
            folder = Path(
                snapshot_download(adapter, allow_patterns=["adapter_config.json", _ADAPTER_WEIGHTS])
            )
    for name in ("adapter_config.json", _ADAPTER_WEIGHTS):
        if not (folder / name).is_file():
            raise AdapterError(f"adapter {adapter} has no {name}; save it with save_pretrained()")
    return folder


def _attach(base: Any, folder: Path) -> PeftModel:
    """Attach an adapter to a model and check that each of its tensors has a counterpart."""
    with _errors_as(AdapterError, f"adapter {folder} does not fit the model"):
        config = PeftConfig.from_pretrained(str(folder))
        if config.peft_type != "LORA":
            raise AdapterError(
                f"adapter {folder} is of type {config.peft_type.value}; only LoRA is supported"
            )
        with safe_open(folder / _ADAPTER_WEIGHTS, framework="pt") as file:
            saved = set(file.keys())
            repeated = {key for key in saved if _is_base_tensor(base, key, file.get_tensor(key))}
        model = PeftModel.from_pretrained(base, str(folder), is_trainable=False)
        own = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    if unmatched := sorted((saved ^ own) - repeated):
        raise AdapterError(
            f"adapter {folder} does not fit the model: {len(unmatched)} of its tensors have no "
            f"counterpart, such as {unmatched[0]}; was it trained on another model?"
        )
    return model


def _is_base_tensor(base: Any, key: str, tensor: torch.Tensor) -> bool:
    """Whether a saved tensor equals the base's own; PEFT saves embeddings that LoRA adapts."""
    name = key.removeprefix("base_model.model.").replace(".base_layer.", ".")
    try:
        own = base.get_parameter(name)
    except AttributeError:
        return False
    return own.shape == tensor.shape and torch.equal(own, tensor.to(own.dtype))


def _weight_files(path: str) -> tuple[Path, ...]:
    """Return the files that a model's weights were read from, sorted by path."""
    local = Path(path).expanduser()
    if local.is_file():
        return (local,)
    if not local.is_dir():
        config = transformers.utils.cached_file(path, "config.json", local_files_only=True)
        local = Path(config).parent
    return tuple(sorted(local.glob("*.safetensors")))


def _only(options: dict[str, Any], name: str) -> dict[str, Any]:
    return {name: options[name]} if name in options else {}


@contextmanager
def _errors_as(kind: type[ModelError | AdapterError], what: str) -> Iterator[None]:
    """Turn the libraries' exceptions into a one-sentence error of type `kind`.

    The libraries raise many exception types for a malformed file. Exceptions
    outside `Exception`, such as KeyboardInterrupt, pass through.
    """
    try:
        yield
    except (ModelError, AdapterError):
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2])[:400]  # some messages quote the whole input
        raise kind(f"{what}: {reason or type(error).__name__}") from error
