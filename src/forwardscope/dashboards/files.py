"""Read the files that ship with the package: dashboards, rules and the compose stack.

A wheel contains them in a folder of this package, with their paths in the repository. In a
checkout they are read from the repository; pyproject.toml lists them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from forwardscope.errors import UserError

__all__ = ["shipped", "working_folder"]

_IN_WHEEL: Final = Path(__file__).parent / "stack"
_CHECKOUT: Final = Path(__file__).parents[3]
_SETTINGS: Final = ".env.example"
#: Setting with the package that the image of the demo installs; the default is the checkout.
_DEMO_PACKAGE: Final = re.compile(r"^# ?FORWARDSCOPE=.*$", re.MULTILINE)


def shipped() -> dict[str, bytes]:
    """Return the content of each file by its path in the repository, sorted by path.

    Raises:
        UserError: This installation has none of the files.
    """
    if _IN_WHEEL.is_dir():
        return _contents(_IN_WHEEL, [_IN_WHEEL])
    return _contents(_CHECKOUT, _listed(_CHECKOUT))


def working_folder(version: str) -> dict[str, bytes]:
    """Return the shipped files, adapted to a folder without a checkout.

    Args:
        version: Release that the image of the demo installs from the package index.

    Raises:
        UserError: This installation has none of the files.
    """
    files = shipped()
    settings = files[_SETTINGS].decode("utf-8")
    pinned = _DEMO_PACKAGE.sub(f"FORWARDSCOPE=forwardscope[hf,otel]=={version}", settings)
    return files | {_SETTINGS: pinned.encode("utf-8")}


def _listed(checkout: Path) -> Iterator[Path]:
    try:
        project = tomllib.loads((checkout / "pyproject.toml").read_text("utf-8"))
    except OSError as error:
        raise UserError(
            "this installation lacks the dashboards' files; "
            "install forwardscope again, with pip's --force-reinstall"
        ) from error
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    return (checkout / path for path in wheel["force-include"])


def _contents(root: Path, entries: Iterable[Path]) -> dict[str, bytes]:
    found = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for entry in entries
        for path in ([entry] if entry.is_file() else entry.rglob("*"))
        if path.is_file()
    }
    return dict(sorted(found.items()))
