"""Models and adapters to load, and their files, which are found before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from forwardscope.backends.hf.adapter_files import adapter_folder
from forwardscope.backends.hf.hub import Report, no_report
from forwardscope.backends.hf.model_files import ModelFiles, find_model
from forwardscope.backends.model_paths import path_mistake
from forwardscope.errors import AdapterError, ModelError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.text import printable

if TYPE_CHECKING:
    from forwardscope.backends.hf.backend import HFBackend
    from forwardscope.backends.hf.forward import Exactness
    from forwardscope.backends.hf.pair import HFPairBackend

__all__ = ["MERGE_FIRST", "Found", "ModelSource", "load_backend"]

#: What to do where the base is an adapter.
MERGE_FIRST: Final = "merge it into its base with merge_and_unload() and save the merged model"
_GIVE_AS_ADAPTER: Final = "give it as the adapter, not as the tuned model"


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


@dataclass(frozen=True, slots=True)
class Found:
    """The files of a source.

    Attributes:
        model: The files of the model.
        adapter: The folder of the adapter, or None.
        tuned: The files of the fine-tuned model, or None.
    """

    model: ModelFiles
    adapter: Path | None = None
    tuned: ModelFiles | None = None


def load_backend(
    source: ModelSource,
    *,
    exactness: Exactness = "fast",
    instrumentation: BackendInstrumentation | None = None,
    rehash: bool = False,
    check: bool = True,
    report: Report = no_report,
) -> HFBackend | HFPairBackend:
    """Load a model and its adapter, or a model and its full fine-tune.

    No code from the model's repository is run, and weights are read only
    from safetensors or GGUF. All files are found before torch is imported, which takes
    seconds.

    Args:
        source: What to load.
        exactness: As in `HFBackend`.
        instrumentation: Caches, counts and traces lookups; a new one by default.
        rehash: Whether identities are computed from the weights also where the digest of
            files that did not change is remembered.
        check: As in `HFBackend`. Without it, loading runs no forward pass.
        report: Called with the name of each step, the amount done and the total amount,
            which is 0 where it is not known.

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
    if mistake := path_mistake(source.path, source.adapter):
        raise (ModelError if mistake[0] == "model" else AdapterError)(mistake[1])
    instrumentation = instrumentation or BackendInstrumentation()
    adapted = printable(source.adapter or source.tuned or "")
    instrumentation.name_model(printable(source.path), adapted, "huggingface")
    found = _find(source, report)
    report("loading torch", 0, 0)
    from forwardscope.backends.hf.loading import load  # noqa: PLC0415 - see above

    return load(source, found, exactness, instrumentation, rehash, check, report)


def _find(source: ModelSource, report: Report) -> Found:
    adapter = None if source.adapter is None else adapter_folder(source.adapter, report)
    model = find_model(source.path, MERGE_FIRST, report)
    if source.tuned is None:
        return Found(model, adapter)
    return Found(model, tuned=find_model(source.tuned, _GIVE_AS_ADAPTER, report))
