"""Load a backend from the files of a model and of its adapter or full fine-tune."""

from __future__ import annotations

from functools import partial
from typing import Final

import torch

from forwardscope.backends.hf.adapter_config import read_config
from forwardscope.backends.hf.adapters import attach
from forwardscope.backends.hf.backend import HFBackend
from forwardscope.backends.hf.device import best_device
from forwardscope.backends.hf.forward import Exactness
from forwardscope.backends.hf.hub import Report
from forwardscope.backends.hf.load_errors import errors_as
from forwardscope.backends.hf.models import load_model, load_tokenizer, quiet_transformers
from forwardscope.backends.hf.origin import Origin
from forwardscope.backends.hf.pair import HFPairBackend
from forwardscope.backends.hf.placement import move
from forwardscope.backends.hf.remembered import sign
from forwardscope.backends.hf.sources import Found, ModelSource
from forwardscope.backends.hf.trained_on import compare_base
from forwardscope.backends.hf.vocabulary import compare_ids, fit_vocabularies
from forwardscope.errors import AdapterError, ModelError
from forwardscope.instrumentation import BackendInstrumentation

__all__ = ["load", "quiet_transformers"]

_DTYPES: Final = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def load(
    source: ModelSource,
    found: Found,
    exactness: Exactness,
    instrumentation: BackendInstrumentation,
    rehash: bool,
    check: bool,
    report: Report,
) -> HFBackend | HFPairBackend:
    """Load what was found; see `load_backend`."""
    load = _load_with_adapter if found.tuned is None else _load_pair
    with quiet_transformers():
        return load(source, found, exactness, instrumentation, rehash, check, report)


def _load_with_adapter(
    source: ModelSource,
    found: Found,
    exactness: Exactness,
    instrumentation: BackendInstrumentation,
    rehash: bool,
    check: bool,
    report: Report,
) -> HFBackend:
    files, folder = found.model, found.adapter
    assert folder is not None  # noqa: S101 - there is no tuned model
    device, dtype = _device_and_dtype(source)
    config, known = read_config(folder)
    signed = sign(files.weights), sign(sorted(folder.glob("adapter_*")))
    report("loading the model", 0, 0)
    tokenizer = load_tokenizer(files)
    base = load_model(files, dtype, partial(report, "loading the model"), known.append)
    known += compare_base(config, files)
    report("attaching the adapter", 0, 0)
    attached = attach(base, source.path, tokenizer, folder, config)
    move(attached.model, device)
    base_files, own_files = (one and one.if_unchanged() for one in signed)
    warnings = (*known, *attached.warnings)
    origin = Origin(base_files, own_files, attached.vocabulary, warnings, rehash)
    report("checking the model", 0, 0)
    with errors_as(AdapterError, f"adapter {source.adapter} cannot be used with {source.path}"):
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
    found: Found,
    exactness: Exactness,
    instrumentation: BackendInstrumentation,
    rehash: bool,
    check: bool,
    report: Report,
) -> HFPairBackend:
    files, own_files = found.model, found.tuned
    assert own_files is not None  # noqa: S101 - it is what makes a pair
    device, dtype = _device_and_dtype(source)
    known: list[str] = []
    signed = [sign(one.weights) for one in (files, own_files)]
    report("loading the model", 0, 0)
    tokenizer = load_tokenizer(files)
    base = load_model(files, dtype, partial(report, "loading the model"), known.append)
    tuning = "loading the tuned model"
    report(tuning, 0, 0)
    model = load_model(own_files, dtype, partial(report, tuning), known.append)
    if own_files.has_tokenizer:
        own = load_tokenizer(own_files)
        known += compare_ids(own, tokenizer, "tuned model", own_files.name, ModelError)
        tokenizer = own
    vocabulary, warnings = fit_vocabularies(base, model, tokenizer)
    base_signed, own_signed = (one and one.if_unchanged() for one in signed)
    origin = Origin(base_signed, own_signed, vocabulary, (*known, *warnings), rehash)
    report("checking the models", 0, 0)
    with errors_as(ModelError, f"tuned model {source.tuned} cannot be used with {source.path}"):
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
