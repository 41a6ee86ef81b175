"""Prompts, texts and pairs that a suite keeps in files of their own."""

from __future__ import annotations

import json
import re
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
#: Other separators, such as U+2028, are part of a text, and of a string in JSON.
_LINE_BREAK: Final = re.compile(r"\r\n?|\n")


def read_items(path: Path) -> list[Any]:
    """Read the items of a file, one in each line that is not blank.

    A `.jsonl` file has a JSON value in each line; of an object with the single key `text`,
    `prompt` or `messages` the item is its value. Any other file has a text in each line.

    Raises:
        SpecError: The file is missing, unreadable or too large, or a line is not JSON. The
            message has the line, and not its text.
    """
    data = _content(path)
    if len(data) > MAX_BYTES:
        raise SpecError(f"{path} is larger than {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 text (byte {error.start})") from error
    lines = _LINE_BREAK.split(text)
    return list(_json_items(path, lines) if path.suffix == ".jsonl" else filter(str.strip, lines))


def _content(path: Path) -> bytes:
    """Return the first bytes of a file, one more than the maximum."""
    try:
        if path.exists() and not path.is_file():  # a pipe without a writer would wait
            raise SpecError(f"{path} is no plain file; give the name of another file")
        with path.open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError for a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise SpecError(f"{path} cannot be read: {reason}") from error


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
