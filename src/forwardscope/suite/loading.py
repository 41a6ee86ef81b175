"""Load a suite from a YAML file."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from forwardscope.errors import SpecError
from forwardscope.suite.mistakes import Mistakes
from forwardscope.suite.spec import SuiteSpec
from forwardscope.suite.text_files import FILE_KEYS, read_items
from forwardscope.suite.validation_errors import add_mistakes
from forwardscope.suite.yaml_source import MAX_BYTES, locate, read_yaml

__all__ = ["load_suite", "parse_suite"]


def load_suite(path: str | PathLike[str]) -> SuiteSpec:
    """Read and validate a suite file.

    A path of a model or an adapter that exists relative to the file is made absolute, and
    the files of prompts, texts and pairs are read.

    Raises:
        SpecError: The file is missing, unreadable or malformed, or has an unknown
            key or an invalid value.
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
            f"suite file {file} does not exist; `forwardscope init` writes a template"
        ) from None
    except OSError as error:
        raise SpecError(f"suite file {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{file}: not UTF-8 text (byte {error.start})") from error
    spec = parse_suite(text, str(file), folder=file.parent)
    model = spec.model.model_copy(
        update={
            "path": _resolve(file, spec.model.path),
            "name": spec.model.name or spec.model.path,
            "adapter_name": spec.model.adapter_name or spec.model.adapter or spec.model.tuned,
            "adapter": _resolve(file, spec.model.adapter),
            "tuned": _resolve(file, spec.model.tuned),
        }
    )
    return spec.model_copy(update={"model": model, "name": spec.name or file.stem})


def parse_suite(text: str, source: str, *, folder: Path = Path()) -> SuiteSpec:
    """Parse and validate the text of a suite.

    Args:
        text: YAML text.
        source: Name of the text in error messages.
        folder: Where relative paths of files with prompts, texts and pairs start.

    Raises:
        SpecError: The text is malformed, or has unknown keys or invalid values; it has a
            sentence for each.
    """
    mistakes = Mistakes(source)
    tree, content = read_yaml(text, mistakes)
    if tree is None or not isinstance(content, dict):
        mistakes.add("a suite is a mapping with the keys version, model and probes")
        raise mistakes.error()
    if "run_id" in content:
        mistakes.add("it is the result of a run, and not a suite; give the suite's file")
        raise mistakes.error()
    content = _with_files(content, tree, mistakes, folder)
    try:
        spec = SuiteSpec.model_validate(content)
    except ValidationError as error:
        add_mistakes(error, content, tree, mistakes)
        raise mistakes.error() from error
    if mistakes:
        raise mistakes.error()
    return spec


def _with_files(
    content: dict[str, Any], tree: yaml.Node, mistakes: Mistakes, folder: Path
) -> dict[str, Any]:
    """Return a suite's content in which each key that names a file is replaced by its items."""
    probes = content.get("probes")
    if not isinstance(probes, list):
        return content
    read = list(probes)
    for index, probe in enumerate(probes):
        for file_key in FILE_KEYS.keys() & probe.keys() if isinstance(probe, dict) else ():
            key, file = FILE_KEYS[file_key], probe[file_key]
            try:
                if key in probe:
                    raise SpecError(f"{key} is given as well; remove one of them")
                if not isinstance(file, str):
                    raise SpecError("must be the path of a file")
                items = read_items(folder / file)
            except SpecError as error:  # the key stays, and is unknown to the validation
                place = locate(tree, ("probes", index, file_key))
                mistakes.add(f"{place.key}: {error}", place.line, about=place.key)
                continue
            others = {name: value for name, value in read[index].items() if name != file_key}
            read[index] = {**others, key: items}
    return {**content, "probes": read}


def _resolve(file: Path, path: str | None) -> str | None:
    """Return a path that exists relative to the file as absolute, and any other unchanged."""
    if path is None:
        return None
    candidate = file.parent / path
    try:
        return str(candidate.resolve()) if candidate.exists() else path
    except OSError:  # not a valid file name; it may be a hub id
        return path
