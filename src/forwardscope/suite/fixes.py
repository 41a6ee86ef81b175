"""How to write a value that a suite does not take."""

from __future__ import annotations

import difflib
import math
import re
from contextlib import suppress
from typing import Any, Final

import yaml

from forwardscope.probes.base import PROMPT_KINDS
from forwardscope.suite.yaml_errors import quoted
from forwardscope.text import shown

__all__ = ["fix_of"]

_MAX_SHOWN: Final = 60
#: Below it each whole number is exact as a float.
_EXACT: Final = 2.0**53
_THOUSANDS: Final = re.compile(r"[1-9][0-9]{0,2}(,[0-9]{3})+")
_TRUE: Final = ("true", "yes", "on")
_FALSE: Final = ("false", "no", "off")


def fix_of(detail: Any, node: yaml.Node | None) -> str:
    """Return how to write a value, as the end of a sentence; empty where that is not certain.

    Args:
        detail: Pydantic's error.
        node: The value in the file; None where the file does not have it.
    """
    error, value = detail["type"], detail["input"]
    if value is None and node is not None and error != "missing":
        is_item = isinstance([key for key in detail["loc"] if key not in PROMPT_KINDS][-1], int)
        return "; write the item, or remove it" if is_item else _of_nothing(error)
    fixes = {
        "string_type": _as_text,
        "int_type": _as_number,
        "int_from_float": _as_number,
        "float_type": _as_number,
        "bool_type": _as_truth,
        "tuple_type": _as_list,
        "literal_error": _as_choice,
    }
    fix = fixes[error](detail, value, node) if error in fixes else None
    return "" if fix is None else f"; {fix}"


def _of_nothing(error: str) -> str:
    if error == "tuple_type":
        return "; write its items below it, indented, each after '- '"
    if error.startswith("model_"):
        return "; indent its keys below it"
    return "; write a value after the colon, or remove the key"


def _as_text(_: Any, value: Any, node: yaml.Node | None) -> str | None:
    if isinstance(node, yaml.ScalarNode):
        return f"put it in quotes: {_quoted(node.value)}"
    if isinstance(value, dict) and value.keys() & {"role", "content"}:
        return "a chat is a list of messages: [{role: …, content: …}]"
    if isinstance(node, yaml.MappingNode) and len(node.value) == 1:
        key, inner = node.value[0]
        if isinstance(inner, yaml.ScalarNode):  # the colon of a text without quotes
            return f"put it in quotes: {_quoted(f'{key.value}: {inner.value}')}"
    return None


def _as_number(detail: Any, value: Any, _: yaml.Node | None) -> str | None:
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return f"write {int(value)}"
    if not isinstance(value, str):
        return None
    is_whole, text = detail["type"] == "int_type", value.strip()
    if _THOUSANDS.fullmatch(text):  # as a fraction it would have a decimal comma
        return f"write {text.replace(',', '')}, without quotes" if is_whole else None
    text = text.replace(",", ".", 1)
    with suppress(ValueError):
        number = float(text)
        if is_whole and number.is_integer() and abs(number) < _EXACT:
            return f"write {int(number)}, without quotes"
        if not is_whole and math.isfinite(number):
            return f"write {shown(text, _MAX_SHOWN)}, without quotes"
    return None


def _as_truth(_: Any, value: Any, __: yaml.Node | None) -> str:
    word = str(value).lower()
    found = "true" if word in _TRUE else "false" if word in _FALSE else None
    return f"write {found}, without quotes" if found else "write true or false"


def _as_list(_: Any, value: Any, node: yaml.Node | None) -> str | None:
    if isinstance(node, yaml.ScalarNode):
        return f"write [{_quoted(node.value) if isinstance(value, str) else node.value}]"
    return "write each item after '- '" if isinstance(value, dict) else None


def _as_choice(detail: Any, value: Any, _: yaml.Node | None) -> str | None:
    choices = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
    similar = difflib.get_close_matches(str(value)[:_MAX_SHOWN], choices, n=1)
    return f"did you mean {similar[0]}?" if similar else None


def _quoted(text: str) -> str:
    return quoted(shown(text, _MAX_SHOWN))
