"""Load models and tokenizers with transformers, without remote code and without pickles."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from transformers.utils import logging as transformers_logging

from forwardscope.backends.hf import compat
from forwardscope.backends.hf.checkpoints import check_checkpoint
from forwardscope.backends.hf.load_errors import errors_as
from forwardscope.backends.hf.model_files import ModelFiles
from forwardscope.backends.hf.model_size import check_size
from forwardscope.errors import ModelError

__all__ = ["load_model", "load_tokenizer", "quiet_transformers"]


def load_tokenizer(files: ModelFiles) -> Any:
    """Load the tokenizer of a model.

    Raises:
        ModelError: It cannot be read.
    """
    with errors_as(ModelError, f"model {files.name} cannot be loaded"):
        return transformers.AutoTokenizer.from_pretrained(
            str(files.folder), trust_remote_code=False, **files.options
        )


def load_model(
    files: ModelFiles,
    dtype: torch.dtype,
    report: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Any:
    """Load a causal language model, without an adapter.

    Args:
        files: Files of the model.
        dtype: Dtype of the weights in memory.
        report: For a GGUF file, called with the number of dequantised tensors
            and the number of all tensors.
        warn: Called with each warning about the model.

    Raises:
        ModelError: The model cannot be read, or its weights are incomplete.
    """
    options: dict[str, Any] = {**files.options}
    if files.gguf is None:  # a GGUF file is no pickle
        options["use_safetensors"] = True
    with errors_as(ModelError, f"model {files.name} cannot be loaded"), _gguf_progress(report):
        check_size(files)
        model, loaded = transformers.AutoModelForCausalLM.from_pretrained(
            str(files.folder),
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    for warning in check_checkpoint(files.name, model, loaded):
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

    with compat.gguf_bar(reporting):
        yield
