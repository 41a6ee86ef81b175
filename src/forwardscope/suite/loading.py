"""From a YAML file to a suite, or one sentence that names file, line, key and what is expected."""

from __future__ import annotations

import difflib
import reprlib
from os import PathLike
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from forwardscope.errors import SpecError
from forwardscope.probes import PROBES
from forwardscope.suite.spec import CacheSpec, Defaults, ModelSpec, SuiteSpec

__all__ = ["MAX_BYTES", "load_suite", "parse_suite"]

#: A larger file is no suite.
MAX_BYTES: Final = 1 << 20

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
        tree = yaml.compose(text, _Loader)
        content = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise SpecError(f"{source}{line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"{source}: not valid YAML: {str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise SpecError(f"{source}: nested too deeply to be a suite") from error
    if tree is None or not isinstance(content, dict):
        raise SpecError(f"{source}: a suite is a mapping with the keys version, model and probes")
    try:
        return SuiteSpec.model_validate(content)
    except ValidationError as error:
        raise SpecError(_sentence(error, content, tree, source)) from error


class _Loader(yaml.SafeLoader):
    """A safe loader that takes no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.value != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} stands twice", key.start_mark
                )
            seen.add(getattr(key, "value", "") if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep)


def _beside(file: Path, path: str) -> str:
    candidate = file.parent / path
    return str(candidate.resolve()) if candidate.exists() else path


def _sentence(error: ValidationError, content: Any, tree: yaml.Node, source: str) -> str:
    details = error.errors(include_url=False)
    first = details[0]
    loc = tuple(part for part in first["loc"] if part not in PROBES)
    line, key = _place(tree, loc)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return f"{source}:{line}: {key}{_expectation(first, loc, content)}{more}"


def _place(tree: yaml.Node, loc: tuple[int | str, ...]) -> tuple[int, str]:
    """Return the line of what `loc` leads to, as near as the file has it, and its name."""
    node, line, name = tree, tree.start_mark.line, ""
    for part in loc:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == part:
                    node, line = value, key.start_mark.line
                    break
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line
    return line + 1, f"{name}: " if name else ""


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
            f"unknown probe kind {tag!r}; known: {kinds}"
            if tag
            else f"kind missing; one of {kinds}"
        )
    message = detail["msg"].removeprefix("Value error, ")
    expected = message[0].lower() + message[1:].replace("tuple", "list").replace(
        "dictionary or instance", "mapping or instance"
    )
    return f"{expected}; got {given}" if kind != "value_error" else message


def _fields_at(loc: tuple[int | str, ...], content: Any) -> list[str]:
    """Return the keys that the section at `loc` knows."""
    model: type[BaseModel] = SuiteSpec
    if loc and loc[0] == "probes":
        model = PROBES[content["probes"][loc[1]]["kind"]]
    elif loc:
        model = _SECTIONS[str(loc[0])]
    return list(model.model_fields)
