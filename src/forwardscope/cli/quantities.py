"""Sizes and ages on the command line."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

import typer
from pydantic import ByteSize, TypeAdapter, ValidationError

from forwardscope.suite.spec import Size

__all__ = ["age", "shown_size", "size"]

_SIZE: Final[TypeAdapter[ByteSize]] = TypeAdapter(Size)
_AGE: Final = re.compile(r"(\d{1,6})(m|h|d|w)", re.ASCII)
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def size(text: str) -> int:
    """Return the bytes of a size such as `512MiB`.

    Raises:
        typer.BadParameter: It is none.
    """
    try:
        return int(_SIZE.validate_python(text))
    except (ValidationError, ArithmeticError) as error:
        raise typer.BadParameter(f"{text!r} is no size; write one like 512MiB or 5GiB") from error


def age(text: str) -> timedelta:
    """Return an age such as `12h` or `30d`.

    Raises:
        typer.BadParameter: It is none.
    """
    found = _AGE.fullmatch(text)
    if found is None:
        units = ", ".join(f"{short} ({long})" for short, long in _UNITS.items())
        raise typer.BadParameter(
            f"{text!r} is no age; write one like 12h or 30d, with one of the units {units}"
        )
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def shown_size(nbytes: int) -> str:
    """Return a number of bytes for people, such as `1.5 MiB`."""
    return ByteSize(nbytes).human_readable(separator=" ")
