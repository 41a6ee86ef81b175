"""Messages for invalid suites: one sentence with the key, what is expected, and the fix."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError

from forwardscope.probes.base import PROMPT_KINDS, Message
from forwardscope.probes.completion_preference import Pair
from forwardscope.suite.any_probe import INVALID_INSTALLED, class_of, known_kinds
from forwardscope.suite.fixes import fix_of
from forwardscope.suite.mistakes import Mistakes
from forwardscope.suite.model_spec import kind_of_model
from forwardscope.suite.spec import (
    DUPLICATE_NAME,
    CacheSpec,
    Defaults,
    ModelSpec,
    ReportSpec,
    ServedModelSpec,
    SuiteSpec,
    TelemetrySpec,
)
from forwardscope.suite.text_files import FILE_KEYS
from forwardscope.suite.yaml_source import locate

__all__ = ["add_mistakes"]

#: Errors of the validation that are described; the others are counted.
_MAX_DESCRIBED: Final = 1000
#: More errors than this are none that a person made, and would take a kilobyte each.
_MAX_ERRORS: Final = 10_000

_LISTED: Final = " (`forwardscope probes` lists their settings)"
_MAX_WORD: Final = 64
_SIZE: Final = "a size: a whole number of bytes, or such as 256MiB or 10GiB"
#: What a value must be, by the type of the mistake.
_EXPECTED: Final = {
    **dict.fromkeys(("byte_size", "byte_size_unit"), _SIZE),
    **dict.fromkeys(("model_type", "model_attributes_type"), "a mapping"),
}
#: Types of mistakes whose message has the value already.
_WHOLE: Final = ("value_error", INVALID_INSTALLED)
#: What a value must be, by its key, where a pattern says so.
_PATTERNS: Final = {
    "period": "a number and s, m, h, d or w, such as 1d",
    "role": "a word in small letters, such as user",
}
_MODELS: Final = (ModelSpec, ServedModelSpec)
_SECTIONS: Final[dict[str, type[BaseModel]]] = {
    "model": ModelSpec,
    "defaults": Defaults,
    "cache": CacheSpec,
    "report": ReportSpec,
    "telemetry": TelemetrySpec,
}
_KINDS: Final = tuple(model.kind for model in _MODELS)
_Location = tuple[int | str, ...]


def add_mistakes(error: ValidationError, content: Any, tree: yaml.Node, mistakes: Mistakes) -> None:
    """Add all mistakes that the validation of a suite found.

    Left out are those about a value that has a mistake already, a missing key of which there
    is a misspelling, and a list that is too short without its invalid items.

    Args:
        error: Error of the validation.
        content: Content of the file.
        tree: YAML nodes of the file, with line numbers.
        mistakes: Receives them.
    """
    if (count := error.error_count()) > _MAX_ERRORS:
        mistakes.add(f"{count} values that are no part of a suite; is it one?")
        return
    # an unknown key is often the misspelling of a missing key
    details = sorted(_details(error), key=lambda detail: detail["type"] != "extra_forbidden")
    mistakes.skip(max(0, count - _MAX_DESCRIBED))
    near = {
        (*loc[:-1], FILE_KEYS.get(nearest, nearest))
        for detail in details
        if detail["type"] == "extra_forbidden" and (loc := _location(detail))
        if (nearest := _nearest(str(loc[-1]), _fields_at(loc[:-1], content)))
    }
    above = {detail["loc"][:end] for detail in details for end in range(len(detail["loc"]))}
    _add_duplicates(content, tree, mistakes)
    for detail in details:
        loc = _location(detail)
        if detail["type"] == "missing" and loc in near:
            continue
        if detail["type"] == "too_short" and detail["loc"] in above:  # without its invalid items
            continue
        place = locate(tree, loc)
        if mistakes.has(place.key) or _has_mistake(place.node, mistakes):
            continue
        message = _message(detail, loc, content)
        if detail["type"] not in ("missing", "extra_forbidden"):
            message += fix_of(detail, place.node)
        mistakes.add(f"{place.key}: {message}" if place.key else message, place.line)


def _add_duplicates(content: Any, tree: yaml.Node, mistakes: Mistakes) -> None:
    """Add the names of probes that were given before, also where other keys are not valid."""
    seen: set[str] = set()
    probes = content.get("probes")
    for index, probe in enumerate(probes if isinstance(probes, list) else ()):
        name = probe.get("name") if isinstance(probe, dict) else None
        if isinstance(name, str):
            if name in seen:
                place = locate(tree, ("probes", index, "name"))
                message = f"two probes are named {reprlib.repr(name)}; names must be unique"
                mistakes.add(f"{place.key}: {message}", place.line)
            seen.add(name)


def _has_mistake(node: yaml.Node | None, mistakes: Mistakes) -> bool:
    mark = None if node is None else node.start_mark
    return mark is not None and mistakes.has((mark.line + 1, mark.column + 1))


def _details(error: ValidationError) -> Iterator[Any]:
    """Yield the errors, with those of probes of installed packages in place of their sum."""
    for detail in error.errors(include_url=False)[:_MAX_DESCRIBED]:
        if detail["type"] == DUPLICATE_NAME:  # found in the file itself
            continue
        inner = detail.get("ctx", {}).get("errors", ())
        yield from ({**one, "loc": (*detail["loc"], *one["loc"])} for one in inner)
        if not inner:
            yield detail


def _location(detail: Any) -> _Location:
    """Return the position of a mistake in the file, as keys and indices."""
    loc: _Location = detail["loc"]
    if loc[:1] == ("model",):  # without the kind of the model, which is no key of the file
        return *loc[:1], *(key for key in loc[1:] if key not in _KINDS)
    if detail["type"].startswith("union_tag_"):
        return *loc, "kind"
    if loc[:1] != ("probes",):
        return loc
    # without the kind of the probe and of a prompt, which are no keys of the file
    return *loc[:2], *(key for key in loc[3:] if key not in PROMPT_KINDS)


def _message(detail: Any, loc: _Location, content: Any) -> str:
    error, value = detail["type"], reprlib.repr(detail["input"])
    if error == "extra_forbidden":
        return _unknown_key(loc, content)
    if error == "missing":
        return "missing; add this key"
    if error == "union_tag_invalid":
        kind, known = detail["ctx"]["tag"], known_kinds()
        return f"unknown probe kind {reprlib.repr(kind)}; {_hint(kind, known)}{_LISTED}"
    if error == "union_tag_not_found":
        return f"missing; use one of {', '.join(known_kinds())}"
    if error in ("too_short", "string_too_short"):
        minimum = detail["ctx"]["min_length"]
        what = "character" if error == "string_too_short" else "item"
        return f"needs at least {minimum} {what}{'s' * (minimum > 1)}; got {value}"
    if error in _EXPECTED:
        return f"must be {_EXPECTED[error]}; got {value}"
    if error == "string_pattern_mismatch" and loc[-1] in _PATTERNS:
        return f"must be {_PATTERNS[str(loc[-1])]}; got {value}"
    message = detail["msg"].removeprefix("Value error, ").replace("Input should", "must")
    message = message.replace("String should", "must").replace("a valid tuple", "a list")
    return message if error in _WHOLE else f"{message}; got {value}"


def _unknown_key(loc: _Location, content: Any) -> str:
    key, known = str(loc[-1]), _fields_at(loc[:-1], content)
    others = [model for model in _MODELS if key in model.model_fields]
    if loc[:1] == ("model",) and others:
        return f"unknown key here; it is for {others[0].kind}"
    sections = [name for name in _SECTIONS if key in _fields_of(name)]
    if len(loc) == 1 and sections and not _nearest(key, known):
        return f"unknown key; it belongs to {' or '.join(sections)}, indented below it"
    return f"unknown key; {_hint(key, known)}"


def _hint(word: Any, known: Sequence[str]) -> str:
    nearest = _nearest(word, known)
    return f"did you mean {nearest}?" if nearest else f"known: {', '.join(known)}"


def _nearest(word: Any, known: Iterable[str]) -> str | None:
    # a long word is no misspelling, and would take long to compare
    similar = difflib.get_close_matches(str(word)[:_MAX_WORD], known, n=1)
    return similar[0] if similar else None


def _fields_at(loc: _Location, content: Any) -> list[str]:
    """Return the valid keys of the section at `loc`, those that name files included."""
    model: type[BaseModel] = SuiteSpec
    if loc[:1] == ("probes",) and len(loc) > 2:
        model = Pair if loc[-2] == "pairs" else Message
    elif loc and loc[0] == "probes":
        model = class_of(content["probes"][loc[1]]["kind"])
    elif loc:
        model = _section_at(str(loc[0]), content)
    names = list(model.model_fields)
    if model is ModelSpec:
        names.append("server")  # with it the model is another kind
    return names + [file_key for file_key, key in FILE_KEYS.items() if key in names]


def _fields_of(section: str) -> set[str]:
    """Return the keys of a section, of each kind of model."""
    models = _MODELS if section == "model" else (_SECTIONS[section],)
    return {key for model in models for key in model.model_fields}


def _section_at(name: str, content: Any) -> type[BaseModel]:
    if name == "model" and kind_of_model(content[name]) == ServedModelSpec.kind:
        return ServedModelSpec
    return _SECTIONS[name]
