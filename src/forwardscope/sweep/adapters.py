"""Which adapters a sweep measures, in which order, and what they are called."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from forwardscope.backends.model_paths import local_path
from forwardscope.errors import UserError
from forwardscope.text import MAX_SENTENCE, listed, plural, shown

__all__ = ["MAX_ADAPTERS", "Adapters", "find_adapters", "labels_of", "natural_key"]

MAX_ADAPTERS: Final = 1000
_CONFIG: Final = "adapter_config.json"
#: Characters that a label keeps of a path.
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._+=@-]")
_MAX_PART: Final = 64


@dataclass(frozen=True, slots=True)
class Adapters:
    """The adapters of a sweep.

    Attributes:
        places: Folders or hub ids, in order.
        labels: Their short names, unique also where case does not count.
        notes: What a reader should know about what was left out.
    """

    places: tuple[str, ...]
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()


def find_adapters(given: Sequence[str], patterns: Sequence[str]) -> Adapters:
    """Return the adapters that were given, then those that match patterns.

    Those of a pattern are folders with an adapter_config.json, in natural order:
    `checkpoint-900` before `checkpoint-1000`.

    Args:
        given: Folders or hub ids; their order is kept.
        patterns: Patterns of folders, such as `runs/*/checkpoint-*`; `**` is any depth.

    Raises:
        UserError: There is no adapter, there are too many, one is given twice or has a name that
            is not UTF-8, or a pattern matches none.
    """
    if empty := [one for one in (*given, *patterns) if not one.strip()]:
        raise UserError(f"an adapter is {empty[0]!r}; give a folder, a hub id or a pattern")
    places, notes = list(given), []
    for pattern in patterns:
        found, others = _matching(pattern)
        places += found
        if others:
            names = listed([shown(one) for one in others])
            notes.append(
                f"{plural(len(others), 'folder')} that {shown(pattern)} matches "
                f"{'has' if len(others) == 1 else 'have'} no {_CONFIG}, and "
                f"{'is' if len(others) == 1 else 'are'} left out: {names}"
            )
    if not places:
        raise UserError("a sweep needs adapters; add --adapter PATH or --adapters PATTERN")
    if unnamed := [one for one in places if not _is_text(one)]:
        raise UserError(f"the name of {shown(unnamed[0])} is not UTF-8; rename the folder")
    if len(places) > MAX_ADAPTERS:
        raise UserError(f"a sweep has at most {MAX_ADAPTERS} adapters; got {len(places)}")
    _check_twice(places)
    return Adapters(tuple(places), tuple(labels_of(places)), tuple(notes))


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts numbers in texts by their value."""
    parts = re.split(r"([0-9]+)", text)
    return [(1, int(one), one) if one.isdecimal() else (0, 0, one) for one in parts]


def labels_of(places: Sequence[str]) -> list[str]:
    """Return as many last parts of each path as tell all of them apart."""
    parts = [[_safe(part) for part in _parts(place)] for place in places]
    longest = max(map(len, parts))
    for length in range(1, longest + 1):
        labels = ["/".join(own[-length:]) for own in parts]
        if len({label.casefold() for label in labels}) == len(labels):
            return labels
    return list(_numbered(labels))


def _numbered(labels: Sequence[str]) -> Iterable[str]:
    """Yield labels with a number after each that is there twice."""
    seen: Counter[str] = Counter()
    taken = {label.casefold() for label in labels}
    for label in labels:
        seen[label.casefold()] += 1
        name, number = label, seen[label.casefold()]
        while number > 1 and (name := f"{label}-{number}").casefold() in taken:
            number += 1
        taken.add(name.casefold())
        yield name


def _parts(place: str) -> list[str]:
    local = local_path(place)
    path = os.path.normpath(local.absolute() if local is not None else place)
    return [part for part in Path(path).parts if part not in (os.sep, ".", "..")] or ["adapter"]


def _is_text(name: str) -> bool:
    """Return whether a name can be written to a result."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _safe(part: str) -> str:
    """Return a part of a path without what a folder or a terminal could take for more."""
    text = _UNSAFE.sub("_", part)
    text = text if len(text) <= _MAX_PART else f"{text[: _MAX_PART // 2]}_{text[-31:]}"
    return f"_{text[1:]}" if text.startswith(".") else text


def _matching(pattern: str) -> tuple[list[str], list[str]]:
    """Return the folders that match: those with an adapter, and others."""
    try:
        found = glob.glob(str(Path(pattern).expanduser()), recursive=True)  # noqa: PTH207 - absolute too
    except (OSError, RuntimeError, ValueError, re.error) as error:
        raise UserError(f"--adapters {shown(pattern)}: {shown(str(error))}") from error
    folders = sorted((one.rstrip(os.sep) for one in found if Path(one).is_dir()), key=natural_key)
    adapters = [one for one in folders if (Path(one) / _CONFIG).is_file()]
    if not adapters:
        what = f"matches {plural(len(folders), 'folder')}, none with" if folders else "matches no"
        what += f" an {_CONFIG}" if folders else " folder"
        raise UserError(f"--adapters {shown(pattern)} {what}; quote the pattern, or correct it")
    return adapters, [one for one in folders if one not in set(adapters)]


def _check_twice(places: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for place in places:
        local = local_path(place)
        real = place if local is None else os.path.realpath(local)
        if real in seen:
            both = (
                shown(place) if seen[real] == place else f"{shown(seen[real])} and {shown(place)}"
            )
            raise UserError(shown(f"an adapter is given twice: {both}", MAX_SENTENCE))
        seen[real] = place
