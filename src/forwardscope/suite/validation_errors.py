"""Messages for invalid suite files: one sentence with the line, the key and the expected value."""

from __future__ import annotations

import difflib
import reprlib
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from forwardscope.probes import PROBES
from forwardscope.probes.base import PROMPT_KINDS, Message
from forwardscope.probes.completion_preference import Pair
from forwardscope.suite.any_probe import INVALID_INSTALLED, known_kinds
from forwardscope.suite.spec import (
    DUPLICATE_NAME,
    CacheSpec,
    Defaults,
    ModelSpec,
    ReportSpec,
    SuiteSpec,
    TelemetrySpec,
)
from forwardscope.suite.yaml_source import locate

__all__ = ["describe_mistake"]

_SIZE: Final = "a size: a whole number of bytes, or such as 256MiB or 10GiB"
#: What a value must be, by the type of the mistake.
_EXPECTED: Final = {
    **dict.fromkeys(("byte_size", "byte_size_unit"), _SIZE),
    **dict.fromkeys(("model_type", "model_attributes_type"), "a mapping"),
}
_SECTIONS: dict[str, type[BaseModel]] = {
    "model": ModelSpec,
    "defaults": Defaults,
    "cache": CacheSpec,
    "report": ReportSpec,
    "telemetry": TelemetrySpec,
}


def describe_mistake(error: ValidationError, content: Any, tree: yaml.Node, source: str) -> str:
    """Describe the first unknown key or, without one, the first mistake.

    Args:
        error: Error from the validation of the suite.
        content: Content of the file.
        tree: YAML nodes of the file, with line numbers.
        source: Name of the file in the sentence.
    """
    details = error.errors(include_url=False)
    # an unknown key is often the misspelling of a missing key
    first = min(details, key=lambda detail: detail["type"] != "extra_forbidden")
    loc = _location(first)
    line, key = locate(tree, loc)
    return f"{source}:{line}: {key}{_message(first, loc, content)}"


def _location(detail: ErrorDetails) -> tuple[int | str, ...]:
    """Return the position of a mistake in the file, as keys and indices."""
    loc = detail["loc"]
    if detail["type"] == DUPLICATE_NAME:
        return "probes", detail["ctx"]["index"], "name"
    if detail["type"].startswith("union_tag_"):
        return *loc, "kind"
    if loc[:1] != ("probes",):
        return loc
    # without the kind of the probe and of a prompt, which are no keys of the file
    return *loc[:2], *(key for key in loc[3:] if key not in PROMPT_KINDS)


def _message(detail: ErrorDetails, loc: tuple[int | str, ...], content: Any) -> str:
    error, value = detail["type"], reprlib.repr(detail["input"])
    if error == "extra_forbidden":
        return _unknown_key(str(loc[-1]), _fields_at(loc[:-1], content))
    if error == "missing":
        return "missing; add this key"
    if error == "union_tag_invalid":
        return (
            f"unknown probe kind {reprlib.repr(detail['ctx']['tag'])}; "
            f"known: {', '.join(known_kinds())}"
        )
    if error == "union_tag_not_found":
        return f"missing; use one of {', '.join(known_kinds())}"
    if error in ("too_short", "string_too_short"):
        minimum = detail["ctx"]["min_length"]
        what = "character" if error == "string_too_short" else "item"
        return f"needs at least {minimum} {what}{'s' * (minimum > 1)}; got {value}"
    if error == INVALID_INSTALLED:
        return detail["msg"]
    if error in _EXPECTED:
        return f"must be {_EXPECTED[error]}; got {value}"
    message = detail["msg"].removeprefix("Value error, ").replace("Input should", "must")
    message = message.replace("String should", "must").replace("a valid tuple", "a list")
    return message if error in ("value_error", DUPLICATE_NAME) else f"{message}; got {value}"


def _unknown_key(key: str, known: list[str]) -> str:
    similar = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {similar[0]}?" if similar else f"known: {', '.join(known)}"
    return f"unknown key; {hint}"


def _fields_at(loc: tuple[int | str, ...], content: Any) -> list[str]:
    """Return the valid keys of the section at `loc`."""
    model: type[BaseModel] = SuiteSpec
    if loc[:1] == ("probes",) and len(loc) > 2:
        model = Pair if loc[-2] == "pairs" else Message
    elif loc and loc[0] == "probes":
        model = PROBES[content["probes"][loc[1]]["kind"]]
    elif loc:
        model = _SECTIONS[str(loc[0])]
    return list(model.model_fields)
