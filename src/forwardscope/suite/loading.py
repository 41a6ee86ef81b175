"""Load a suite from a YAML file."""

from __future__ import annotations

import sys
import warnings
from contextlib import nullcontext, suppress
from os import PathLike
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from forwardscope.backends.model_paths import path_mistake
from forwardscope.errors import SpecError
from forwardscope.suite.baselines import misplaced_baselines
from forwardscope.suite.mistakes import Mistakes
from forwardscope.suite.spec import ModelSpec, ServedModelSpec, SuiteSpec
from forwardscope.suite.text_files import FILE_KEYS, read_items
from forwardscope.suite.validation_errors import add_mistakes
from forwardscope.suite.yaml_source import MAX_BYTES, locate, read_yaml
from forwardscope.text import printable

__all__ = ["STDIN", "load_suite", "parse_suite", "resolve_path"]

#: Name of standard input in place of a file.
STDIN: Final = "-"


def load_suite(path: str | PathLike[str]) -> SuiteSpec:
    """Read and validate a suite file.

    A path of a model or an adapter that exists relative to the file is made absolute, and
    the files of prompts, texts and pairs are read.

    Args:
        path: The file, or `-` for standard input, whose paths start at the working directory.

    Raises:
        SpecError: The file is missing, unreadable or malformed, or has unknown keys or invalid
            values; it has a sentence for each.
    """
    file = Path(path)
    is_stdin = str(path) == STDIN
    source = "standard input" if is_stdin else str(file)
    spec = parse_suite(_text(file, source, is_stdin), source, folder=file.parent)
    model = _resolved(spec.model, file.parent)
    return spec.model_copy(
        update={"model": model, "name": spec.name or (None if is_stdin else file.stem)}
    )


def _resolved(model: ModelSpec | ServedModelSpec, folder: Path) -> ModelSpec | ServedModelSpec:
    """Return a model whose paths start at a folder, with the names of what they were."""
    if isinstance(model, ServedModelSpec):
        seen = ("adapter_dir", "adapter_scratch")  # by the server too, perhaps as a link alone
        kept = {key: _resolve(folder, getattr(model, key), follow=False) for key in seen}
        return model.model_copy(update={**kept, "tokenizer": _resolve(folder, model.tokenizer)})
    update = {key: _resolve(folder, getattr(model, key)) for key in ("path", "adapter", "tuned")}
    update["name"] = model.name or model.path
    update["adapter_name"] = model.adapter_name or model.adapter or model.tuned
    return model.model_copy(update=update)


def _text(file: Path, source: str, is_stdin: bool) -> str:
    """Return the text of a suite file or of standard input."""
    if is_stdin and sys.stdin is None:
        raise SpecError("standard input is closed; give it a suite, or name the suite's file")
    try:
        with nullcontext(sys.stdin.buffer) if is_stdin else file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise SpecError(f"{source}: larger than {MAX_BYTES} bytes; is it a suite?")
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise SpecError(
            f"suite file {source} does not exist; `forwardscope init` writes a template"
        ) from None
    except OSError as error:
        raise SpecError(f"suite file {source} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{source}: not UTF-8 text (byte {error.start})") from error
    except ValueError as error:  # a name that no file can have
        raise SpecError(f"suite file {source} cannot be read: {error}") from error


def parse_suite(text: str, source: str, *, folder: Path = Path()) -> SuiteSpec:
    """Parse and validate the text of a suite.

    Args:
        text: YAML text.
        source: Name of the text in error messages.
        folder: Where relative paths start.

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
    _check_paths(content, tree, mistakes, folder)
    try:
        spec = SuiteSpec.model_validate(content)
    except ValidationError as error:
        add_mistakes(error, content, tree, mistakes)
        raise mistakes.error() from error
    _check_exactness(spec, tree, mistakes)
    _check_baselines(spec, tree, mistakes, source)
    if mistakes:
        raise mistakes.error()
    return spec


def _check_paths(
    content: dict[str, Any], tree: yaml.Node, mistakes: Mistakes, folder: Path
) -> None:
    """Add a mistake where the model or the adapter is none, as its files show."""
    section = content.get("model")
    given = section if isinstance(section, dict) and "server" not in section else {}
    texts = (one if isinstance(one, str) else None for one in map(given.get, ("path", "adapter")))
    model, adapter = (_resolve(folder, one) for one in texts)
    if model is not None and (found := path_mistake(model, adapter)):
        key = "path" if found[0] == "model" else "adapter"
        place = locate(tree, ("model", key))
        mistakes.add(f"{place.key}: {found[1]}", place.line)


def _check_exactness(spec: SuiteSpec, tree: yaml.Node, mistakes: Mistakes) -> None:
    """Add a mistake where a server is asked for what it cannot promise."""
    if isinstance(spec.model, ServedModelSpec) and spec.exactness == "strict":
        place = locate(tree, ("exactness",))
        message = "a server decides which prompts it computes together; remove the key"
        mistakes.add(f"{place.key}: {message}", place.line)


def _check_baselines(spec: SuiteSpec, tree: yaml.Node, mistakes: Mistakes, source: str) -> None:
    """Add a mistake for each baseline that no probe uses, and warn of one that comes late."""
    for found in misplaced_baselines(spec.probes):
        place = locate(tree, ("probes", found.index))
        if found.useless:
            mistakes.add(f"{place.key}: {found.message}", place.line)
        else:
            message = f"{source}:{place.line}: {place.key}: {found.message}"
            warnings.warn(printable(message), UserWarning, stacklevel=3)


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


def resolve_path(path: str, *folders: Path, follow: bool = True) -> str:
    """Return a path that exists relative to a folder, the first such, as absolute.

    Any other path is returned unchanged; it may be a hub id.

    Args:
        path: The path.
        folders: Where it may start.
        follow: Whether symbolic links in it are replaced by what they name.
    """
    for folder in folders:
        with suppress(OSError, ValueError):  # not a valid file name
            candidate = folder / path
            if candidate.exists():
                return str(candidate.resolve() if follow else candidate.absolute())
    return path


def _resolve(folder: Path, path: str | None, *, follow: bool = True) -> str | None:
    return None if path is None else resolve_path(path, folder, follow=follow)
