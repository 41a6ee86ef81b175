"""Prompts, texts and pairs that a suite keeps in files of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from forwardscope.errors import SpecError

__all__ = ["FILE_KEYS", "read_items"]

#: Maximum bytes of one file.
MAX_BYTES: Final = 64 * 2**20
#: Keys of a probe that may be in a file, by the key that names the file.
FILE_KEYS: Final = {f"{key}_file": key for key in ("prompts", "texts", "pairs", "sentinel_prompts")}
#: Where an object in a line has its text or its chat.
_KEYS: Final = ("text", "prompt", "messages")


def read_items(path: Path) -> list[Any]:
    """Read the items of a file, one in each line that is not blank.

    A `.jsonl` file has a JSON value in each line; of an object with the single key `text`,
    `prompt` or `messages` the item is its value. Any other file has a text in each line.

    Raises:
        SpecError: The file is missing, unreadable or too large, or a line is not JSON. The
            message has the line, and not its text.
    """
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise SpecError(f"{path} is larger than {MAX_BYTES} bytes")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 text (byte {error.start})") from error
    return list(_json_items(path, lines) if path.suffix == ".jsonl" else filter(str.strip, lines))


def _json_items(path: Path, lines: list[str]) -> Iterator[Any]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                item = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise SpecError(f"{path}:{number}: not JSON") from error
            yield _item_of(item)


def _item_of(item: Any) -> Any:
    if isinstance(item, Mapping) and len(item) == 1:
        (key,) = item
        return item[key] if key in _KEYS else item
    return item
