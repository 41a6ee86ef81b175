"""Parse PromQL with the variables of dashboards."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final

import promql_parser

__all__ = ["ANY", "parsed"]

#: Prefix of a name that replaces a variable; such a name can be any metric or label.
ANY: Final = "__variable_"

#: The parser takes quadratic time on nested queries, and overflows its stack on long ones.
_MAX_LENGTH: Final = 5_000
_DURATION: Final = "5m"  # PromQL accepts a duration as a number too
_TOKEN: Final = re.compile(
    r"""(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)|\$(?:\{(\w+)[^}]*\}|(\w+))"""
)
_GROUPING: Final = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*$")


def parsed(query: str) -> promql_parser.Expr:
    """Return the syntax tree of a query; a suitable value replaces each variable.

    Raises:
        ValueError: The query is not PromQL, or is too long.
    """
    if len(query) > _MAX_LENGTH:
        raise ValueError(f"it has {len(query)} characters, more than {_MAX_LENGTH}")
    try:
        return promql_parser.parse(_filled(query, _DURATION))
    except ValueError:
        with suppress(ValueError):
            return promql_parser.parse(_filled(query))
        raise


def _filled(query: str, number: str | None = None) -> str:
    """Replace each variable by a value that suits its context.

    Args:
        query: The query of the dashboard.
        number: The value where both a number and a name are valid; None uses a name there.
    """

    def value(found: re.Match[str]) -> str:
        if found["text"] is not None:
            return found[0]  # any string is a valid label value
        before, after = query[: found.start()], query[found.end() : found.end() + 1]
        if before.rfind("[") > before.rfind("]"):
            return "5" if after.isalpha() else _DURATION
        joined = _is_name(before[-1:]) or _is_name(after) or (after and after in "[{")
        name = ANY + (found[2] or found[3])
        return name if number is None or joined or _GROUPING.search(before) else number

    return _TOKEN.sub(value, query)


def _is_name(character: str) -> bool:
    return character.isalnum() or character in ("_", ":")
