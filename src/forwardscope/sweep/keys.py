"""The key of a finished result: a digest of all that determines it.

A result is kept for the next sweep of the same key. A key has the suite without settings that
change no value, the content of the adapter's files, the base's files by name, size and time, and
the versions of the packages that compute.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from forwardscope.backends.model_paths import local_path
from forwardscope.suite.selection import local_model, replace_adapter
from forwardscope.suite.spec import SuiteSpec

__all__ = ["keys_of"]

_PACKAGES: Final = ("forwardscope", "torch", "transformers", "tokenizers", "peft")
#: Settings of a suite that change no value of a result.
_WITHOUT_EFFECT: Final = {"telemetry", "period", "cache"}
_CHUNK: Final = 1 << 20
#: Folders with more files are no adapters; of a base only files at its top are read.
_MAX_FILES: Final = 1000


def keys_of(spec: SuiteSpec, adapters: Sequence[str]) -> list[str]:
    """Return the key of each adapter's result.

    Args:
        spec: The suite.
        adapters: Folders or hub ids. A hub id is known by its name alone.
    """
    base = _files(local_model(spec).path, content=False)
    versions = list(_versions())
    keys = []
    for adapter in adapters:
        suite = replace_adapter(spec, adapter).model_dump(mode="json", exclude=_WITHOUT_EFFECT)
        own = _files(adapter, content=True)
        keys.append(_digest([suite, own, base, versions, spec.cache.enabled]))
    return keys


def _files(place: str, *, content: bool) -> list[Any]:
    """Return what tells the files of a folder from others, or from those of another day."""
    path = local_path(place)
    if path is None:
        return [place]
    try:
        files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file())
        if len(files) > _MAX_FILES:
            return [place, len(files)]
        return [[file.name, _content(file) if content else _state(file)] for file in files]
    except OSError as error:  # the adapter will be an error too
        return [place, str(error.strerror)]


def _content(file: Path) -> str:
    digest = hashlib.blake2b(digest_size=32)
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _state(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns]


def _versions() -> Iterable[str]:
    for package in _PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            continue


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()
