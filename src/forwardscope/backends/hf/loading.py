"""Load a backend from the files of a model and of its adapter or full fine-tune."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig

from forwardscope.backends.hf.adapter_config import read_config
from forwardscope.backends.hf.adapters import attach
from forwardscope.backends.hf.backend import HFBackend
from forwardscope.backends.hf.device import best_device
from forwardscope.backends.hf.forward import Checks, Exactness
from forwardscope.backends.hf.hub import Report
from forwardscope.backends.hf.load_errors import errors_as
from forwardscope.backends.hf.model_files import ModelFiles
from forwardscope.backends.hf.models import load_model, load_tokenizer, quiet_transformers
from forwardscope.backends.hf.origin import Origin
from forwardscope.backends.hf.pair import HFPairBackend
from forwardscope.backends.hf.placement import move
from forwardscope.backends.hf.remembered import SignedFiles, sign
from forwardscope.backends.hf.sources import Found, ModelSource
from forwardscope.backends.hf.trained_on import compare_base
from forwardscope.backends.hf.vocabulary import compare_ids, fit_vocabularies
from forwardscope.errors import AdapterError, ModelError
from forwardscope.instrumentation import BackendInstrumentation

__all__ = [
    "Adapter",
    "LoadedBase",
    "attach_to",
    "load",
    "load_base",
    "quiet_transformers",
    "read_adapter",
]

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


@dataclass(frozen=True, slots=True)
class LoadedBase:
    """A base model without an adapter.

    Attributes:
        source: What was loaded; its adapter has no effect.
        files: The files of the model.
        signed: Those of the weights, unless one has changed while it was read.
        model: The model, on the CPU as `load_base` returns it.
        device: The device to compute on.
        warnings: Warnings about the model.
        checks: Checks of the model; extended where an adapter is attached.
    """

    source: ModelSource
    files: ModelFiles
    signed: SignedFiles | None
    model: Any
    device: torch.device
    warnings: tuple[str, ...]
    checks: Checks = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter whose config is read.

    Attributes:
        name: The adapter as its user named it.
        config: Its config.
        warnings: Warnings about the config.
    """

    name: str
    config: LoraConfig
    warnings: tuple[str, ...]


def read_adapter(name: str, folder: Path) -> Adapter:
    """Read the config of an adapter.

    Raises:
        AdapterError: It cannot be read, or is of no LoRA adapter.
    """
    config, known = read_config(folder)
    return Adapter(name, config, tuple(known))


def load_base(source: ModelSource, files: ModelFiles, report: Report) -> LoadedBase:
    """Load a base model without an adapter.

    Raises:
        ModelError: The device is unknown, or the model cannot be read.
    """
    device, dtype = _device_and_dtype(source)
    known: list[str] = []
    signed = sign(files.weights)
    report("loading the model", 0, 0)
    model = load_model(files, dtype, partial(report, "loading the model"), known.append)
    unchanged = signed and signed.if_unchanged()
    return LoadedBase(source, files, unchanged, model, device, tuple(known))


def attach_to(
    base: LoadedBase,
    folder: Path,
    adapter: Adapter,
    instrumentation: BackendInstrumentation,
    *,
    exactness: Exactness,
    rehash: bool,
    check: bool,
    report: Report,
) -> HFBackend:
    """Attach an adapter to a base; return the backend of both.

    Args:
        base: The base, whose modules and vocabulary are changed.
        folder: Folder of the adapter.
        adapter: Name, config and warnings of the adapter.
        instrumentation: As in `HFBackend`.
        exactness: As in `HFBackend`.
        rehash: As in `load_backend`.
        check: As in `HFBackend`.
        report: As in `load_backend`.

    Raises:
        AdapterError: The adapter does not fit the base.
        ModelError: Base and adapter cannot be moved to the device.
    """
    signed, path = sign(sorted(folder.glob("adapter_*"))), base.source.path
    known = [*adapter.warnings, *base.warnings, *compare_base(adapter.config, base.files)]
    report("attaching the adapter", 0, 0)
    tokenizer = load_tokenizer(base.files)
    attached = attach(base.model, path, tokenizer, folder, adapter.config)
    move(attached.model, base.device)
    origin = Origin(
        base.signed,
        signed and signed.if_unchanged(),
        attached.vocabulary,
        (*known, *attached.warnings),
        rehash,
    )
    report("checking the model", 0, 0)
    with errors_as(AdapterError, f"adapter {adapter.name} cannot be used with {path}"):
        return HFBackend(
            attached.model,
            attached.tokenizer,
            instrumentation=instrumentation,
            exactness=exactness,
            origin=origin,
            check=check,
            base_checks=base.checks,
        )


def _load_with_adapter(
    source: ModelSource,
    found: Found,
    exactness: Exactness,
    instrumentation: BackendInstrumentation,
    rehash: bool,
    check: bool,
    report: Report,
) -> HFBackend:
    folder = found.adapter
    assert folder is not None  # noqa: S101 - there is no tuned model
    adapter = read_adapter(source.adapter or "", folder)
    base = load_base(source, found.model, report)
    return attach_to(
        *(base, folder, adapter, instrumentation),
        exactness=exactness,
        rehash=rehash,
        check=check,
        report=report,
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
