"""The files of a LoRA adapter, and those of it scaled or with random factors.

A scaled adapter has the same weights and another `lora_alpha`, so nothing is rounded. A random
one has factors of the same names and shapes, as in the null views of `HFBackend`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import msgspec

from forwardscope.backends.digests import digest_of
from forwardscope.errors import AdapterError
from forwardscope.text import listed, shown

__all__ = ["AdapterFiles", "Shape", "read_adapter"]

#: Name and shape of a factor.
Shape = tuple[str, tuple[int, ...]]

_CONFIG: Final = "adapter_config.json"
_WEIGHTS: Final = "adapter_model.safetensors"
_MAX_CONFIG: Final = 8 << 20
_MAX_HEADER: Final = 100 << 20
#: Bytes before the header of a file in safetensors, which are its length.
_LENGTH: Final = 8
_FACTOR: Final = re.compile(r".*\.lora_[AB]\.weight|.*\.lora_embedding_[AB]")
#: Modules in the order in which models of Llama's kind have them, and PEFT their factors.
_ORDER: Final = (
    "self_attn",
    "mlp",
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
)
#: Settings that change what a server computes with the factors.
_SCALING: Final = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")


class _Alphas(msgspec.Struct):
    """The numbers of an adapter's config by which its change is scaled."""

    lora_alpha: float = 8
    alpha_pattern: dict[str, float] | None = None


class _Tensor(msgspec.Struct):
    """An entry in the header of a file in safetensors."""

    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """An adapter in a folder.

    Attributes:
        folder: The folder.
        config: Content of its `adapter_config.json`.
        shapes: Its factors, in the order in which random ones are drawn.
        others: Names of its tensors that are no factors.
        digest: Digest of its weights.
        version: Size, time of the last change and place of the file that was digested.
    """

    folder: Path
    config: Mapping[str, Any]
    shapes: tuple[Shape, ...]
    others: tuple[str, ...]
    digest: str
    version: tuple[int, ...]

    @property
    def refusal(self) -> str | None:
        """Why it can be neither scaled nor randomised on a server; None where it can."""
        if (kind := self.config.get("peft_type")) != "LORA":
            return f"the adapter is of type {shown(str(kind))}, and only LoRA is supported"
        if self.config.get("use_dora"):
            return "the adapter has DoRA, which servers do not scale"
        if self.config.get("modules_to_save") or self.others:
            what = shown(listed(self.others)) or "modules_to_save"
            return f"the adapter has saved modules ({what}), which servers do not load"
        return None

    @property
    def parts(self) -> Mapping[str, str]:
        """What a view takes from the adapter, by name, for identities."""
        scaling = {key: self.config.get(key) for key in _SCALING}
        return {
            "adapter files": digest_of([self.digest, scaling]),
            "adapter shape": digest_of([self.shapes, scaling]),
        }

    def scaled(self, lam: float) -> Mapping[str, Any]:
        """Return the config of an adapter whose change is multiplied by `lam`."""
        patterns = self.config.get("alpha_pattern") or {}
        return {
            **self.config,
            "lora_alpha": self.config.get("lora_alpha", 8) * lam,
            "alpha_pattern": {name: alpha * lam for name, alpha in patterns.items()},
        }

    def write_scaled(self, folder: Path, lam: float) -> None:
        """Write an adapter whose change is multiplied by `lam` into a new folder.

        Raises:
            AdapterError: The weights are no longer those that were digested.
        """
        folder.mkdir()
        (folder / _CONFIG).write_text(json.dumps(self.scaled(lam)), encoding="utf-8")
        weights = (self.folder / _WEIGHTS).resolve()  # not a link to a relative path
        try:
            os.link(weights, folder / _WEIGHTS)
        except OSError:  # another file system, or one without links
            shutil.copyfile(weights, folder / _WEIGHTS)
        if _version(weights) != self.version:
            raise AdapterError(
                f"the weights in {self.folder} have changed since the start; give the server's "
                "adapter and model.revision new names, and run again"
            )

    def write_random(self, folder: Path, seed: int, init_scale: float, rank_scale: float) -> None:
        """Write an adapter with Gaussian factors into a new folder; see `as_null_adapter`.

        Raises:
            MissingExtraError: torch, which draws them, is not installed.
        """
        from forwardscope.backends.hf.random_adapters import (  # noqa: PLC0415 - loads torch
            write_random_factors,
        )

        folder.mkdir()
        (folder / _CONFIG).write_text(json.dumps(self.config), encoding="utf-8")
        std = init_scale * math.sqrt(rank_scale)
        write_random_factors(folder / _WEIGHTS, self.shapes, seed, std)


def read_adapter(folder: str) -> AdapterFiles:
    """Return the adapter in a folder; its weights are digested.

    Raises:
        AdapterError: The folder has none that can be read.
    """
    place = Path(folder).expanduser().absolute()  # a server may see no more than this path
    weights = place / _WEIGHTS
    try:
        config = _config(place)
        version = _version(weights)
        with _opened(weights) as file:
            tensors = _header(file, weights.stat().st_size)
        shapes = sorted((one for one in tensors if _FACTOR.fullmatch(one[0])), key=_place)
        digest = _digest(weights)
    except FileNotFoundError as error:
        name = Path(error.filename or "").name
        raise AdapterError(f"model.adapter_dir: {folder} has no {name}") from error
    except OSError as error:
        raise AdapterError(
            f"model.adapter_dir: {folder} cannot be read: {error.strerror}"
        ) from error
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        raise AdapterError(f"model.adapter_dir: {folder} has damaged files: {error}") from error
    others = tuple(name for name, _ in tensors if not _FACTOR.fullmatch(name))
    return AdapterFiles(place, config, tuple(shapes), others, digest, version)


def _opened(path: Path) -> BinaryIO:
    if path.exists() and not path.is_file():  # to open a pipe would wait for who writes
        raise ValueError(f"{path.name} is no file")
    return path.open("rb")


def _version(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino


def _config(folder: Path) -> Mapping[str, Any]:
    with _opened(folder / _CONFIG) as file:
        data = file.read(_MAX_CONFIG + 1)
    if len(data) > _MAX_CONFIG:
        raise ValueError(f"{_CONFIG} is larger than {_MAX_CONFIG} bytes")
    config = msgspec.json.decode(data, type=dict[str, Any])
    msgspec.convert(config, _Alphas)
    return config


def _header(file: BinaryIO, size: int) -> list[Shape]:
    """Return the tensors that the header of a file in safetensors has.

    Args:
        file: The file.
        size: Its bytes.
    """
    length = int.from_bytes(file.read(_LENGTH), "little")
    if length > min(size - _LENGTH, _MAX_HEADER):
        raise ValueError(f"{_WEIGHTS} has no whole header")
    parts = msgspec.json.decode(file.read(length), type=dict[str, msgspec.Raw])
    parts.pop("__metadata__", None)
    found = {name: msgspec.json.decode(one, type=_Tensor).shape for name, one in parts.items()}
    if sum(map(math.prod, found.values())) > size:
        raise ValueError(f"{_WEIGHTS} has tensors that are larger than the file")
    return list(found.items())


def _place(shape: Shape) -> list[tuple[int, int, str]]:
    """Return where a factor is among those of a model; numbers count as numbers."""
    return [
        (_ORDER.index(part) if part in _ORDER else 0, int(part) if part.isdecimal() else 0, part)
        for part in shape[0].split(".")
    ]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
