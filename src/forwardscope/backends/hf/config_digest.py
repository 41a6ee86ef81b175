"""The digest of a model's config, without what does not affect its values."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from forwardscope.backends.digests import digest_of

__all__ = ["cleaned", "config_digest"]

#: Keys that name the origin of a file. They do not affect values and differ between machines.
_PROVENANCE: Final = (
    "_name_or_path",
    "architectures",  # the class of the model is in the identity
    "base_model_name_or_path",
    "gguf_file",
    "revision",
    "transformers_version",
)
_ROWS: Final = "vocab_size"
_NOTHING: Final[Mapping[object, int]] = MappingProxyType({})


def config_digest(model: Any, rows: Mapping[object, int] = _NOTHING) -> str:
    """Return the digest of a model's class and its config without its origin.

    Args:
        model: The model.
        rows: Sizes of the vocabulary that stand for another one, by the size in the config.
    """
    return digest_of([type(model).__name__, cleaned(model.config.to_dict(), rows)])


def cleaned(config: Mapping[str, Any], rows: Mapping[object, int] = _NOTHING) -> dict[str, Any]:
    """Return a config without its origin, and with other sizes of the vocabulary."""
    kept = {
        key: cleaned(value, rows) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _PROVENANCE
    }
    if kept.get(_ROWS) in rows:
        kept[_ROWS] = rows[kept[_ROWS]]
    return kept
