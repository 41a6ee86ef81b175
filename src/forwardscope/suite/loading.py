"""From a YAML file to a suite, or one sentence that names file, line, key and what is expected."""

from __future__ import annotations

import difflib
import reprlib
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from forwardscope.errors import SpecError
from forwardscope.probes import PROBES
from forwardscope.suite.spec import TWO_OF_A_NAME, CacheSpec, Defaults, ModelSpec, SuiteSpec

__all__ = ["MAX_BYTES", "load_suite", "parse_suite"]

#: A larger file is no suite.
MAX_BYTES: Final = 1 << 20

_TEXT: Final = "tag:yaml.org,2002:str"
_MERGE: Final = "tag:yaml.org,2002:merge"
_INT_BITS: Final = 64
_LONGEST_KEY: Final = 40

_SECTIONS: dict[str, type[BaseModel]] = {
    "model": ModelSpec,
    "defaults": Defaults,
    "cache": CacheSpec,
}


def load_suite(path: str | PathLike[str]) -> SuiteSpec:
    """Read and check a suite file; no model is loaded.

    A model or adapter path that exists relative to the file is made absolute.

    Raises:
        SpecError: The file is missing, unreadable, malformed, or asks for
            something unknown.
    """
    file = Path(path)
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise SpecError(f"{file}: larger than {MAX_BYTES} bytes; is it a suite?")
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        raise SpecError(
            f"suite file {file} does not exist; `forwardscope init` writes one to start from"
        ) from None
    except OSError as error:
        raise SpecError(f"suite file {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{file}: not UTF-8 text (byte {error.start})") from error
    spec = parse_suite(text, str(file))
    model = spec.model.model_copy(
        update={
            "path": _beside(file, spec.model.path),
            "adapter": _beside(file, spec.model.adapter),
        }
    )
    return spec.model_copy(update={"model": model, "name": spec.name or file.stem})


def parse_suite(text: str, source: str) -> SuiteSpec:
    """Check the text of a suite.

    Args:
        text: YAML.
        source: What errors call it.

    Raises:
        SpecError: It is malformed, or asks for something unknown.
    """
    try:
        tree, content = _read(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise SpecError(f"{source}{line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise SpecError(f"{source}: not valid YAML: {str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise SpecError(f"{source}: nested too deeply to be a suite") from error
    if tree is None or not isinstance(content, dict):
        raise SpecError(f"{source}: a suite is a mapping with the keys version, model and probes")
    try:
        return SuiteSpec.model_validate(content)
    except ValidationError as error:
        raise SpecError(_sentence(error, content, tree, source)) from error


def _read(text: str) -> tuple[yaml.Node | None, Any]:
    """Return the nodes of a YAML document, which know their lines, and what they say."""
    loader = _Loader(text)
    try:
        tree = loader.get_single_node()
        if tree is None:
            return None, None
        if _written_out(tree, {}) > MAX_BYTES:
            raise yaml.constructor.ConstructorError(
                None, None, "its aliases refer to more than a suite can hold", tree.start_mark
            )
        return tree, loader.construct_document(tree)
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """A safe loader whose keys are text, none of them twice, and whose numbers fit 64 bits."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == _MERGE:
                continue
            if key.tag != _TEXT:
                raise yaml.composer.ComposerError(
                    None, None, "a key must be text; put it in quotes", key.start_mark
                )
            if key.value in seen:
                raise yaml.composer.ComposerError(
                    None, None, f"key {reprlib.repr(key.value)} stands twice", key.start_mark
                )
            seen.add(key.value)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int) and value.bit_length() >= _INT_BITS:
                raise OverflowError
        except (ArithmeticError, AttributeError, LookupError, ValueError) as error:
            problem = f"{reprlib.repr(node.value)} is no valid {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error
        return value


def _written_out(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the nodes below and with this one, aliases written out; a circle is beyond any."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MAX_BYTES
        is_map = isinstance(node, yaml.MappingNode)
        below = chain.from_iterable(node.value) if is_map else node.value
        count = 1 + sum(_written_out(child, known) for child in below)
        known[id(node)] = min(count, MAX_BYTES + 1)
    return known[id(node)]


def _beside(file: Path, path: str) -> str:
    candidate = file.parent / path
    try:
        return str(candidate.resolve()) if candidate.exists() else path
    except OSError:  # no file can have this name, but a hub id or a typo may
        return path


def _sentence(error: ValidationError, content: Any, tree: yaml.Node, source: str) -> str:
    details = error.errors(include_url=False)
    # a key that nobody knows explains one that is missing
    first = min(details, key=lambda detail: detail["type"] != "extra_forbidden")
    loc = _where(first)
    line, key = _place(tree, loc)
    return f"{source}:{line}: {key}{_expectation(first, loc, content)}"


def _where(detail: ErrorDetails) -> tuple[int | str, ...]:
    """Return the keys and indices that lead to a mistake in the file."""
    loc = detail["loc"]
    if detail["type"] == TWO_OF_A_NAME:
        return "probes", detail["ctx"]["index"], "name"
    if detail["type"].startswith("union_tag_"):
        return *loc, "kind"
    return loc[:2] + loc[3:] if loc[:1] == ("probes",) else loc  # the third only names the model


def _place(tree: yaml.Node, loc: tuple[int | str, ...]) -> tuple[int, str]:
    """Return the line of what `loc` leads to, as near as the file has it, and its name."""
    node, line, name = tree, tree.start_mark.line, ""
    for part in loc:
        name += f"[{part}]" if isinstance(part, int) else f".{_shown(part)}"
        if isinstance(node, yaml.MappingNode):
            for key, value in reversed(node.value):  # what is merged stands first
                if key.value == part:
                    node, line = value, key.start_mark.line
                    break
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line
    return line + 1, f"{name[1:]}: " if name else ""


def _shown(key: str) -> str:
    """Return a key as it stands in the file, or quoted and cut where that is no plain word."""
    return key if key.isidentifier() and len(key) <= _LONGEST_KEY else reprlib.repr(key)


def _expectation(detail: ErrorDetails, loc: tuple[int | str, ...], content: Any) -> str:
    kind, given = detail["type"], reprlib.repr(detail["input"])
    if kind == "extra_forbidden":
        known = list(_fields_at(loc[:-1], content))
        near = difflib.get_close_matches(str(loc[-1]), known, n=1)
        return (
            f"unknown key; {f'did you mean {near[0]}?' if near else 'known: ' + ', '.join(known)}"
        )
    if kind == "missing":
        return "missing; add this key"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        kinds = ", ".join(PROBES)
        tag = detail.get("ctx", {}).get("tag")
        return (
            f"unknown probe kind {reprlib.repr(tag)}; known: {kinds}"
            if tag
            else f"missing; one of {kinds}"
        )
    if kind in ("too_short", "string_too_short"):
        least = detail["ctx"]["min_length"]
        what = "character" if kind == "string_too_short" else "item"
        return f"needs at least {least} {what}{'s' * (least > 1)}; got {given}"
    if kind in ("model_type", "model_attributes_type"):
        return f"must be a mapping; got {given}"
    message = detail["msg"].removeprefix("Value error, ").replace("Input should", "must")
    message = message.replace("String should", "must").replace("a valid tuple", "a list")
    return message if kind in ("value_error", TWO_OF_A_NAME) else f"{message}; got {given}"


def _fields_at(loc: tuple[int | str, ...], content: Any) -> list[str]:
    """Return the keys that the section at `loc` knows."""
    model: type[BaseModel] = SuiteSpec
    if loc and loc[0] == "probes":
        model = PROBES[content["probes"][loc[1]]["kind"]]
    elif loc:
        model = _SECTIONS[str(loc[0])]
    return list(model.model_fields)
