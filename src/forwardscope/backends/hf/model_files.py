"""Find the files of a model: in a folder, in a GGUF file or on the hub.

A model's files are data of unknown origin. Before a library reads them, this module
refuses those that would have a pickle read, or code or files from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from forwardscope.backends.hf.gguf_header import read_shapes
from forwardscope.backends.hf.hub import Report, download, no_report
from forwardscope.backends.hf.load_errors import errors_as, valid_path
from forwardscope.backends.model_paths import is_path
from forwardscope.errors import ModelError

__all__ = ["TOKENIZER_FILES", "ModelFiles", "all_settings", "find_model", "has_vocabulary"]

#: Patterns of a tokenizer's files.
TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
)
#: Those of them without which there is no vocabulary.
_VOCABULARIES: Final = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model")
_CONFIGS: Final = ("config.json", "generation_config.json")
#: Implementations that are part of torch; for others transformers may take a kernel of the hub.
_ATTENTION: Final = (None, "eager", "sdpa", "flex_attention")
_URLS: Final = ("http://", "https://")
_WEIGHTS: Final = ".safetensors"
_INDEX: Final = ".safetensors.index.json"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of one model.

    Attributes:
        name: The model as its user named it.
        folder: Folder that has the files.
        gguf: Name of its GGUF file; None for a model in safetensors.
    """

    name: str
    folder: Path
    gguf: str | None = None

    @property
    def options(self) -> dict[str, str]:
        """Arguments of `from_pretrained` that name the files beside their folder."""
        return {} if self.gguf is None else {"gguf_file": self.gguf}

    @property
    def weights(self) -> tuple[Path, ...]:
        """The files that the weights are read from, sorted by path."""
        if self.gguf is not None:
            return (self.folder / self.gguf,)
        index, whole = self.folder / f"model{_INDEX}", self.folder / f"model{_WEIGHTS}"
        if whole.is_file():
            return (whole,)
        if index.is_file():
            shards = set(_read(index)["weight_map"].values())
            return (index, *sorted(self.folder / shard for shard in shards))
        return tuple(sorted(path for end in (_WEIGHTS, _INDEX) for path in self._ending(end)))

    @property
    def has_tokenizer(self) -> bool:
        """Whether there is a tokenizer among the files."""
        return self.gguf is not None or has_vocabulary(self.folder)

    def _ending(self, end: str) -> Iterator[Path]:
        return self.folder.glob(f"*{end}")


def has_vocabulary(folder: Path) -> bool:
    """Whether a folder has a tokenizer with its vocabulary, not its settings alone."""
    return any(True for name in _VOCABULARIES for _ in folder.glob(name))


def find_model(
    path: str, if_adapter: str = "give its base", report: Report = no_report
) -> ModelFiles:
    """Return the files of a model; those of a hub id are downloaded, without pickles.

    Args:
        path: A folder, a `.gguf` file or a hub id.
        if_adapter: What to do where the path is an adapter.
        report: Called with the progress of a download.

    Raises:
        ModelError: The model cannot be found, or its files are refused: weights in a
            pickle or outside the folder, or a config that names code on the hub.
    """
    local = valid_path(path, ModelError, "model")
    if path.endswith(".gguf"):
        if not local.is_file():
            raise ModelError(f"model file {path} does not exist")
        with errors_as(ModelError, f"model {path} cannot be loaded"):
            read_shapes(local)  # a check of all lengths, before a library trusts them
        return ModelFiles(path, local.parent, local.name)
    if not local.is_dir():
        if local.exists() or is_path(path):
            fix = "give a folder, a .gguf file or a hub id"
            if path.startswith(_URLS):
                fix += "; the model of a server is model.server of a suite"
            raise ModelError(f"model path {path} is not a folder; {fix}")
        local = _downloaded(path, report)
    try:
        is_adapter = (local / "adapter_config.json").is_file()
        is_model = (local / "config.json").is_file()
    except OSError as error:
        raise ModelError(f"model folder {path} cannot be read: {error.strerror}") from error
    if not is_model:
        reason = f"it is an adapter; {if_adapter}" if is_adapter else "is it a transformers model?"
        raise ModelError(f"model {path} has no config.json; {reason}")
    if is_adapter:
        raise ModelError(
            f"model {path} has an adapter in its folder, which transformers loads into it; move "
            "adapter_config.json out of the folder"
        )
    files = ModelFiles(path, local)
    _check_weights(files)
    _check_config(files)
    return files


def _downloaded(path: str, report: Report) -> Path:
    wanted = [*_CONFIGS, "*.jinja", *TOKENIZER_FILES, f"*{_WEIGHTS}", f"*{_INDEX}"]
    elsewhere = ["*/*", "consolidated*"]  # other formats of the same weights
    return download(path, ModelError, "model", report, wanted=wanted, unwanted=elsewhere)


def _check_weights(files: ModelFiles) -> None:
    """Check that the weights are in safetensors in the folder, as every index says."""
    if not files.weights and any(files.folder.glob("pytorch_model*.bin")):
        raise ModelError(
            f"model {files.name} cannot be loaded: its weights in pytorch_model.bin are a pickle, "
            "which is not read; load it with transformers and save it again with save_pretrained()"
        )
    for index in files.folder.glob(f"*{_INDEX}"):
        with errors_as(ModelError, f"{index.name} of model {files.name} cannot be read"):
            shards = set(_read(index)["weight_map"].values())
        for shard in shards:
            _check_name(files, index.name, shard)


def _check_config(files: ModelFiles) -> None:
    """Check that the config names neither code nor weights of another place."""
    with errors_as(ModelError, f"config.json of model {files.name} cannot be read"):
        settings = list(all_settings(_read(files.folder / "config.json")))
    for key, value in settings:
        if key.endswith("attn_implementation") and value not in _ATTENTION:
            raise ModelError(
                f"config.json of model {files.name} names an attention implementation that may be "
                f"code on the hub ({key}: {value!r}), which is not run; remove the key"
            )
        if key == "transformers_weights" and value is not None:
            _check_name(files, "config.json", str(value).removesuffix(".index.json"))


def _check_name(files: ModelFiles, where: str, name: object) -> None:
    plain = isinstance(name, str) and not {"/", "\\", "\0"} & set(name)
    if not plain or not str(name).endswith(_WEIGHTS):
        raise ModelError(
            f"{where} of model {files.name} names the weights file {name!r}; only .safetensors "
            "files in the model's own folder are read"
        )


def all_settings(value: object) -> Iterator[tuple[str, object]]:
    """Yield every key with its value, at any depth."""
    parts = value.items() if isinstance(value, dict) else ()
    for key, part in parts:
        yield str(key), part
        yield from all_settings(part)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
