"""Hash everything that determines a backend's values."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from platformdirs import user_cache_path

__all__ = ["backend_identity"]

#: Keys that name the origin of a file. They do not affect values and differ between machines.
_PROVENANCE = (
    "_name_or_path",
    "base_model_name_or_path",
    "gguf_file",
    "revision",
    "transformers_version",
)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LIBRARIES = ("forwardscope", "torch", "transformers", "peft")


def backend_identity(
    model: PeftModel, tokenizer: Any, exactness: str, files: tuple[Path, ...]
) -> str:
    """Return a SHA-256 of weights, adapter, tokenizer, dtype, exactness, device and versions.

    The digest of the weights is saved in the user's cache folder under the
    files' paths, sizes and times. A saved digest that is invalid or cannot be
    read or written is ignored. Call this only while no view has changed the
    weights.
    """
    parts = {
        "weights": _weights_digest(model, files),
        "config": _without_provenance(model.config.to_dict()),
        "adapter": _without_provenance(model.peft_config[model.active_adapter].to_dict()),
        "tokenizer": _tokenizer_digest(tokenizer),
        "exactness": exactness,
        "device": model.device.type,
        "versions": {name: version(name) for name in _LIBRARIES},
    }
    return _digest([_canonical(parts)])


def _weights_digest(model: PeftModel, files: tuple[Path, ...]) -> str:
    if not files:
        return _digest(_weights(model))
    try:
        signature = _canonical([[str(path.resolve()), *_size_and_time(path)] for path in files])
    except OSError:  # the files were moved after loading
        return _digest(_weights(model))
    name = _digest([signature, str(model.dtype).encode()])
    file = user_cache_path("forwardscope") / "identities" / name
    try:
        saved = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        saved = ""
    if _DIGEST.fullmatch(saved):
        return saved
    digest = _digest(_weights(model))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}")
        temporary.write_text(digest, encoding="ascii")
        temporary.replace(file)
    except OSError:
        pass  # a later process computes the digest again
    return digest


def _weights(model: PeftModel) -> Iterator[bytes]:
    for name, tensor in sorted(model.state_dict().items()):
        yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _tokenizer_digest(tokenizer: Any) -> str:
    fast = getattr(tokenizer, "backend_tokenizer", None)
    rules = fast.to_str() if fast is not None else _canonical(tokenizer.get_vocab()).decode()
    return _digest([rules.encode(), _canonical(tokenizer.special_tokens_map)])


def _without_provenance(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_provenance(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _PROVENANCE
    }


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _canonical(value: Mapping[str, Any] | list[Any]) -> bytes:
    return json.dumps(value, sort_keys=True, default=_plain).encode()


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)


def _digest(chunks: Iterable[bytes | memoryview]) -> str:
    sha = hashlib.sha256()
    for chunk in chunks:
        sha.update(chunk)
    return sha.hexdigest()
