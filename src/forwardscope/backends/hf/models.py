"""Load models and tokenizers with transformers, without remote code and without pickles."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import modeling_gguf_pytorch_utils
from transformers.utils import logging as transformers_logging

from forwardscope.backends.hf.checkpoints import check_checkpoint
from forwardscope.backends.hf.load_errors import errors_as, local_path
from forwardscope.backends.hf.vocabulary import TOKENIZER_FILES
from forwardscope.errors import ModelError

__all__ = ["load_base", "load_tuned", "quiet_transformers"]


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
    where, options = _locate(
        path, "merge it into its base with merge_and_unload() and save the merged model"
    )
    tokenizer = _load_tokenizer(path, where, options)
    return _load_model(path, where, options, dtype, report, warn), tokenizer


def load_tuned(
    path: str, dtype: torch.dtype, warn: Callable[[str], None]
) -> tuple[Any, Any | None]:
    """Load a fully fine-tuned model, and its tokenizer if its folder has one.

    Args:
        path: A folder, a `.gguf` file or a hub id.
        dtype: Dtype of the weights in memory.
        warn: Called with each warning about the model.

    Raises:
        ModelError: The model cannot be found or read, or its weights are incomplete.
    """
    where, options = _locate(path, "give it as the adapter, not as the tuned model")
    folder = Path(where)
    has_tokenizer = (
        "gguf_file" in options
        or not folder.is_dir()
        or any(file for name in TOKENIZER_FILES for file in folder.glob(name))
    )
    tokenizer = _load_tokenizer(path, where, options) if has_tokenizer else None
    return _load_model(path, where, options, dtype, None, warn), tokenizer


def _locate(path: str, if_adapter: str) -> tuple[str, dict[str, Any]]:
    """Return the name by which transformers finds a model, and its options.

    Args:
        path: A folder, a `.gguf` file or a hub id.
        if_adapter: What to do where the path is an adapter.
    """
    local = local_path(path, ModelError, "model")
    if path.endswith(".gguf"):
        if not local.is_file():
            raise ModelError(f"model file {path} does not exist")
        return str(local.parent), {"gguf_file": local.name}
    if local.is_dir():
        if (local / "config.json").is_file():
            _check_format(path, local)
            return str(local), {}
        is_adapter = (local / "adapter_config.json").is_file()
        reason = f"it is an adapter; {if_adapter}" if is_adapter else "is it a transformers model?"
        raise ModelError(f"model folder {path} has no config.json; {reason}")
    if local.exists() or path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise ModelError(
            f"model path {path} is not a folder; give a folder, a .gguf file or a hub id"
        )
    return path, {}


def _check_format(path: str, folder: Path) -> None:
    if not any(folder.glob("*.safetensors")) and any(folder.glob("pytorch_model*.bin")):
        raise ModelError(
            f"model {path} cannot be loaded: its weights in pytorch_model.bin are a pickle, which "
            "is not read; load it with transformers and save it again with save_pretrained()"
        )


def _load_tokenizer(path: str, where: str, options: dict[str, Any]) -> Any:
    with errors_as(ModelError, f"model {path} cannot be loaded"):
        return transformers.AutoTokenizer.from_pretrained(where, trust_remote_code=False, **options)


def _load_model(
    path: str,
    where: str,
    options: dict[str, Any],
    dtype: torch.dtype,
    report: Callable[[int, int], None] | None,
    warn: Callable[[str], None] | None,
) -> Any:
    if not options:  # a GGUF file is no pickle
        options = {"use_safetensors": True}
    with errors_as(ModelError, f"model {path} cannot be loaded"), _gguf_progress(report):
        model, loaded = transformers.AutoModelForCausalLM.from_pretrained(
            where, dtype=dtype, trust_remote_code=False, output_loading_info=True, **options
        )
    for warning in check_checkpoint(path, model, loaded):
        if warn is not None:
            warn(warning)
    return model


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
