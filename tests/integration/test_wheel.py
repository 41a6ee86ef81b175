"""The wheel has what the servers load, built from a checkout or the sdist, and no more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest

from forwardscope.dashboards.files import shipped, working_folder

_CHECKOUT = Path(__file__).parents[2]
_STACK = "forwardscope/dashboards/stack/"
_MADE = (
    ".git",
    ".venv*",
    ".*_cache",
    ".hypothesis",
    "node_modules",
    "built",
    "__pycache__",
    "dist",
)
#: What people keep in a checkout, and nobody else may get.
_OWN = (
    ".env",
    "dashboards/alertmanager/slack-url",
    "dashboards/prometheus/targets/mine.yml",
    "dashboards/preview/node_modules/left/pad.js",
    "dashboards/preview/built/index.html",
)


def run(*command: object, **environment: str) -> str:
    """Run a program of this Python and return what it printed."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def wheel_of(source: Path, into: Path) -> Path:
    """Build a wheel of a folder or an sdist, as pip does for its users."""
    run("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", into, source)
    (wheel,) = into.glob("forwardscope-*.whl")
    return wheel


def stack_in(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel that ship beside the code."""
    with ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(_STACK)]
        return {name.removeprefix(_STACK): archive.read(name) for name in names}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout, with what people keep there."""
    copy = tmp_path_factory.mktemp("source") / "forwardscope"
    shutil.copytree(_CHECKOUT, copy, ignore=shutil.ignore_patterns(*_MADE))
    for name in _OWN:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("secret")
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of that checkout."""
    return wheel_of(checkout, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of that checkout."""
    folder = tmp_path_factory.mktemp("sdist")
    builder = folder / "builder"
    run("-m", "pip", "install", "--quiet", "--target", builder, "hatchling>=1.27")
    code = (
        "import sys\n"
        "from hatchling.builders.sdist import SdistBuilder\n"
        "list(SdistBuilder(sys.argv[1]).build(directory=sys.argv[2]))\n"
    )
    run("-c", code, checkout, folder, PYTHONPATH=str(builder))
    (archive,) = folder.glob("forwardscope-*.tar.gz")
    return archive


def test_the_wheel_has_the_files_of_the_checkout(wheel: Path) -> None:
    """The same paths, the same bytes; no secret of a checkout, and nothing of the preview."""
    assert stack_in(wheel) == shipped()


def test_the_wheel_is_small(wheel: Path) -> None:
    """Beside them it has the package, and nothing that a build or a browser made."""
    with ZipFile(wheel) as archive:
        rest = [name for name in archive.namelist() if not name.startswith(_STACK)]
    outside = [name for name in rest if not name.startswith(("forwardscope/", "forwardscope-"))]
    assert outside == []
    assert [name for name in rest if "node_modules" in name or "preview" in name] == []


def test_the_sdist_has_nobodys_own(sdist: Path) -> None:
    """It has what the wheel is built from, and no file that people keep in a checkout."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= set(shipped())
    assert names.isdisjoint(_OWN)
    assert [name for name in names if name.startswith("dashboards/preview")] == []


def test_the_sdist_makes_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    """Each file of one is in the other."""
    other = wheel_of(sdist, tmp_path)
    with ZipFile(wheel) as ours, ZipFile(other) as theirs:
        assert sorted(theirs.namelist()) == sorted(ours.namelist())
    assert stack_in(other) == shipped()


def test_the_installed_wheel_exports(wheel: Path, tmp_path: Path) -> None:
    """What `pip install` brings writes the tree of a checkout, and finds nothing wrong with it."""
    installed, folder = tmp_path / "installed", tmp_path / "stack"
    run("-m", "pip", "install", "--quiet", "--no-deps", "--target", installed, wheel)
    there = {"PYTHONPATH": str(installed)}
    where = run("-c", "import forwardscope; print(forwardscope.__file__)", **there)
    assert Path(where.strip()).is_relative_to(installed)
    run("-m", "forwardscope", "dashboards", "export", folder, **there)
    paths = [path for path in folder.rglob("*") if path.is_file()]
    written = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    assert written == working_folder(version("forwardscope"))
    run("-m", "forwardscope", "dashboards", "check", **there)
    run("-m", "forwardscope", "dashboards", "check", folder, **there)
