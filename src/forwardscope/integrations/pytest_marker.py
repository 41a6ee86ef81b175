"""The arguments of the marker `forwardscope`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from forwardscope.errors import SpecError
from forwardscope.files import check_outputs
from forwardscope.store.locations import DEFAULT
from forwardscope.suite.loading import STDIN, load_suite, resolve_path
from forwardscope.suite.selection import choose_probes, chosen_store, replace_adapter
from forwardscope.suite.spec import SuiteSpec
from forwardscope.text import MAX_SENTENCE, shown

__all__ = ["Marker", "read_marker"]


def _text(value: object) -> object:
    return fspath(value) if isinstance(value, PathLike) else value


def _names(value: object) -> object:
    """Return names as a tuple; one name needs no list."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple | set | frozenset):
        raise PydanticCustomError("names", "must be a list of names of probes")
    return tuple(value)


_Path = Annotated[str, BeforeValidator(_text), Field(min_length=1)]
_Names = Annotated[tuple[str, ...], BeforeValidator(_names), Field(min_length=1)]


class Marker(BaseModel):
    """Arguments of a marker; all paths are absolute, or hub ids. Equal ones share a run.

    Attributes:
        suite: The suite file.
        probes: Names of the probes to run; None for all.
        adapter: Folder or hub id of an adapter, instead of the suite's.
        store: Location of a store, instead of the suite's.
        trace: File to which each lookup appends a line.
        result: File for the result, as JSON.
        min_score: Smallest score of the suite; it does not change the run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    suite: _Path
    probes: _Names | None = None
    adapter: _Path | None = None
    store: _Path | None = None
    trace: _Path | None = None
    result: _Path | None = None
    min_score: Annotated[float, Field(ge=0, le=1)] | None = None

    @property
    def run(self) -> Marker:
        """The part that determines the run."""
        return self.model_copy(update={"min_score": None})

    def located(self, folder: Path, root: Path) -> Marker:
        """Return the marker with absolute paths.

        Args:
            folder: Where the suite and the adapter are looked for first.
            root: Where they are looked for then, and where files are written.
        """
        suite = str(root / resolve_path(self.suite, folder, root))
        adapter = None if self.adapter is None else resolve_path(self.adapter, folder, root)
        files = {
            name: None if path is None else str(root / path)
            for name, path in {"trace": self.trace, "result": self.result}.items()
        }
        store = self.store
        if store is not None and store != DEFAULT and "://" not in store and store[0] != "~":
            store = str(root / store)
        return self.model_copy(update={"suite": suite, "adapter": adapter, "store": store, **files})

    def outputs(self) -> dict[str, Path | None]:
        """Return the files that a run writes, by content."""
        files = {"trace": self.trace, "result": self.result}
        return {what: None if path is None else Path(path) for what, path in files.items()}

    def load(self, root: Path) -> SuiteSpec:
        """Return the suite with the choices of the marker, without loading its model.

        Args:
            root: Folder below which paths are shown as relative.

        Raises:
            UserError: The suite has mistakes, or the marker asks for what it does not have.
        """
        file = Path(_shortened(self.suite, Path.cwd()))
        name = None if self.adapter is None else _shortened(self.adapter, root)
        spec = replace_adapter(load_suite(file), self.adapter, name, option="adapter")
        spec = choose_probes(spec, self.probes or (), option="probes")
        store = chosen_store(spec.cache, self.store, no_store=False)
        check_outputs(self.outputs(), [file])
        return spec.model_copy(update={"cache": spec.cache.model_copy(update={"store": store})})


_ARGUMENTS: Final = tuple(Marker.model_fields)


def read_marker(args: Sequence[Any], given: Mapping[str, Any], folder: Path, root: Path) -> Marker:
    """Return the arguments of a marker; the suite may be given by position.

    Args:
        args: Arguments by position.
        given: Arguments by name.
        folder: Folder of the test's file.
        root: Root of the session.

    Raises:
        SpecError: An argument is unknown, missing or not valid; it has a sentence for each.
    """
    values = dict(given)
    if args and "suite" not in values:
        values["suite"], *args = args
    if args:
        raise SpecError("the marker takes the suite alone by position; name the other arguments")
    try:
        return Marker.model_validate(values).located(folder, root)
    except ValidationError as error:
        raise SpecError(*map(_sentence, error.errors())) from None


def _sentence(found: Any) -> str:
    name = str(found["loc"][0])
    if found["type"] == "missing":
        return f"the marker needs {name}=, the path of a suite file"
    if found["type"] == "extra_forbidden":
        similar = difflib.get_close_matches(name, _ARGUMENTS, n=1)
        hint = f"did you mean {similar[0]}?" if similar else f"it has {', '.join(_ARGUMENTS)}"
        return shown(f"the marker has no argument {name!r}; {hint}", MAX_SENTENCE)
    return shown(f"{name}={found['input']!r}: {found['msg']}", MAX_SENTENCE)


def _shortened(path: str, folder: Path) -> str:
    """Return a path below a folder as relative to it, and any other unchanged.

    A file whose name alone would be standard input is one of the others.
    """
    found = Path(path)
    short = str(found.relative_to(folder)) if found.is_relative_to(folder) else path
    return path if short == STDIN else short
