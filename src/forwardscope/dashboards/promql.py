"""Parsing queries as dashboards have them, with variables in them."""

from __future__ import annotations

import re
from typing import Final

import promql_parser

__all__ = ["ANY", "parsed"]

#: What a name has in it that a variable gives: it may be any.
ANY: Final = "__variable_"

#: The parser works in quadratic time on what is nested, and overflows its stack at last.
_MAX_LENGTH: Final = 5_000
_DURATION: Final = "5m"  # PromQL takes it for a number too
_TOKEN: Final = re.compile(
    r"""(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)|\$(?:\{(\w+)[^}]*\}|(\w+))"""
)
_GROUPING: Final = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*$")


def parsed(query: str) -> promql_parser.Expr:
    """Return a query's tree, with something fitting in the place of each variable.

    Raises:
        ValueError: It is no PromQL, or is too long.
    """
    if len(query) > _MAX_LENGTH:
        raise ValueError(f"it has {len(query)} characters, and up to {_MAX_LENGTH} are looked at")
    try:
        return promql_parser.parse(_filled(query, _DURATION))
    except ValueError:
        try:
            return promql_parser.parse(_filled(query))
        except ValueError:
            pass
        raise


def _filled(query: str, alone: str | None = None) -> str:
    """Fill variables in as what stands around them asks.

    Args:
        query: As the dashboard has it.
        alone: For those around which nothing tells a number from a name; else they are names.
    """

    def value(found: re.Match[str]) -> str:
        if found["text"] is not None:
            return found[0]  # a label's value may be anything
        before, after = query[: found.start()], query[found.end() : found.end() + 1]
        if before.rfind("[") > before.rfind("]"):
            return "5" if after.isalpha() else _DURATION
        joined = _is_name(before[-1:]) or _is_name(after) or (after and after in "[{")
        name = ANY + (found[2] or found[3])
        return name if alone is None or joined or _GROUPING.search(before) else alone

    return _TOKEN.sub(value, query)


def _is_name(character: str) -> bool:
    return character.isalnum() or character in ("_", ":")
