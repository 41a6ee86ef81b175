"""Hash everything that determines a backend's values."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from platformdirs import user_cache_path

from forwardscope.backends.hf import compat
from forwardscope.backends.hf.adapter_config import WITHOUT_EFFECT
from forwardscope.backends.hf.origin import Origin
from forwardscope.backends.hf.vocabulary import Vocabulary
from forwardscope.files import replace_content

__all__ = ["backend_identity", "pair_identity", "sign_files"]

#: Keys that name the origin of a file. They do not affect values and differ between machines.
_PROVENANCE = (
    "_name_or_path",
    "base_model_name_or_path",
    "gguf_file",
    "revision",
    "transformers_version",
)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LIBRARIES = ("forwardscope", "transformers", "peft", "tokenizers")
_QUANTISERS = ("bitsandbytes", "compressed-tensors", "gptqmodel", "torchao")


def sign_files(files: Iterable[Path]) -> str | None:
    """Return a digest of files' paths, sizes, times and inodes; None where one is missing."""
    try:
        return _digest([_canonical([[str(path.resolve()), *_state(path)] for path in files])])
    except OSError:
        return None


def backend_identity(model: PeftModel, tokenizer: Any, exactness: str, origin: Origin) -> str:
    """Return a SHA-256 of everything that determines a backend's values.

    These are weights, adapter, vocabulary, tokenizer, dtype, exactness, device,
    settings of torch and versions of the libraries. The digest of the weights is
    saved in the user's cache folder under the signature of their files. A saved
    digest that is invalid or cannot be read or written is ignored. Call this only
    while no view has changed the weights.
    """
    rows = compat.output_rows(model)
    vocabulary = origin.vocabulary or Vocabulary(rows, rows)
    parts = {
        **_of_model(model, origin.files, model.device),
        **_of_both(tokenizer, exactness, vocabulary),
        "adapter": _of_adapter(model.peft_config[model.active_adapter].to_dict()),
    }
    return _digest([_canonical(parts)])


def pair_identity(
    models: tuple[Any, Any],
    tokenizer: Any,
    exactness: str,
    origin: Origin,
    device: torch.device,
) -> str:
    """Return `backend_identity` of a base and its tuned model, which compute on a device."""
    base, tuned = models
    rows = compat.output_rows(base), compat.output_rows(tuned)
    vocabulary = origin.vocabulary or Vocabulary(*rows)
    parts = {
        **_of_both(tokenizer, exactness, vocabulary),
        "base": _of_model(base, origin.files, device),
        "tuned": _of_model(tuned, origin.tuned_files, device),
    }
    return _digest([_canonical(parts)])


def _of_model(model: Any, signature: str | None, device: torch.device) -> dict[str, object]:
    return {
        "weights": _weights_digest(model, signature),
        "config": _without_provenance(model.config.to_dict()),
        "computation": _computation(model, device),
        "versions": _versions(model),
    }


def _of_both(tokenizer: Any, exactness: str, vocabulary: Vocabulary) -> dict[str, object]:
    return {
        "vocabulary": [vocabulary.base, vocabulary.tuned],
        "tokenizer": _tokenizer_digest(tokenizer),
        "exactness": exactness,
    }


def _weights_digest(model: Any, signature: str | None) -> str:
    if signature is None:
        return _digest(_weights(model))
    key = [
        signature,
        str(model.dtype),
        str(compat.output_rows(model)),
        *sorted(_versions(model).items()),
    ]
    file = user_cache_path("forwardscope") / "identities" / _digest([_canonical(key)])
    try:
        saved = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        saved = ""
    if _DIGEST.fullmatch(saved):
        return saved
    digest = _digest(_weights(model))
    with suppress(OSError):  # a later process computes the digest again
        replace_content(file, digest.encode("ascii"))
    return digest


def _computation(model: Any, device: torch.device) -> dict[str, object]:
    """Return the device and the settings that select torch's kernels."""
    on_cuda = device.type == "cuda"
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if on_cuda else platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "matmul": torch.get_float32_matmul_precision(),
        "attention": compat.attention(model),
    }


def _versions(model: Any) -> dict[str, str]:
    """Return the versions of the libraries that compute the values."""
    versions = {name: version(name) for name in _LIBRARIES}
    versions |= {
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
    }
    if getattr(model.config, "quantization_config", None):
        for name in _QUANTISERS:
            with suppress(PackageNotFoundError):
                versions[name] = version(name)
    return versions


def _weights(model: Any) -> Iterator[bytes]:
    for name, tensor in sorted(model.state_dict().items()):
        yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _tokenizer_digest(tokenizer: Any) -> str:
    fast = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(fast.to_str()) if fast is not None else _slow_rules(tokenizer)
    for name in ("padding", "truncation"):  # not applied to prompts; a call may reset them
        rules.pop(name, None)
    settings = [bool(getattr(tokenizer, "split_special_tokens", False))]
    return _digest([_canonical([rules, settings]), _canonical(tokenizer.special_tokens_map)])


def _slow_rules(tokenizer: Any) -> dict[str, Any]:
    """Return the class, settings and vocabulary files of a tokenizer in Python."""
    with tempfile.TemporaryDirectory() as folder:
        saved = tokenizer.save_vocabulary(folder)
        files = [_digest([Path(path).read_bytes()]) for path in saved or () if path]
    settings = {
        key: str(value)
        for key, value in tokenizer.init_kwargs.items()
        if not key.endswith(("_file", "_path"))
    }
    return {
        "class": type(tokenizer).__name__,
        "files": files,
        "settings": settings,
        "vocabulary": tokenizer.get_vocab(),
    }


def _of_adapter(config: dict[str, Any]) -> dict[str, Any]:
    effective = {key: value for key, value in config.items() if key not in WITHOUT_EFFECT}
    return _without_provenance(effective)


def _without_provenance(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_provenance(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _PROVENANCE
    }


def _state(path: Path) -> tuple[int, ...]:
    """Return what changes with a file's content. The change time cannot be set back."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _canonical(value: Mapping[str, Any] | list[Any]) -> bytes:
    return json.dumps(value, sort_keys=True, default=_plain).encode()


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)


def _digest(chunks: Iterable[bytes | memoryview]) -> str:
    sha = hashlib.sha256()
    for chunk in chunks:
        sha.update(chunk)
    return sha.hexdigest()
