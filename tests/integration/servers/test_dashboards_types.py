"""The dashboards' JSON, as the TypeScript compiler reads it with Grafana's own types."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .processes import program

_TYPES = Path(__file__).with_name("types")
_PAGES = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parents[3] / "dashboards" / "grafana").glob("*.json"))
}
Compile = Callable[[dict[str, Any]], str]


@pytest.fixture(scope="module")
def compile_page(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compile a page and return what the compiler has to say; nothing where it is content."""
    folder = tmp_path_factory.mktemp("types")
    for file in _TYPES.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    install = [program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(install, cwd=folder, check=True, capture_output=True)

    def compiled(page: dict[str, Any]) -> str:
        (folder / "page.ts").write_text(_source(page))
        ran = subprocess.run(
            [program("node"), "node_modules/typescript/bin/tsc", "--pretty", "false"],
            cwd=folder,
            check=False,
            capture_output=True,
            text=True,
        )
        assert (ran.returncode != 0) == bool(ran.stdout), ran.stderr
        return ran.stdout

    return compiled


def _source(page: dict[str, Any]) -> str:
    """Return a program of literals: what a type does not know is a mistake in those alone."""
    rest = {name: value for name, value in page.items() if name != "panels"}
    return "\n".join(
        [
            "import type { Page, Panels } from './shapes';",
            f"export const page: Page = {json.dumps(rest)};",
            *(
                f"export const panel{one['id']}: Panels['{one['type']}'] = {json.dumps(one)};"
                for one in page["panels"]
            ),
        ]
    )


@pytest.mark.parametrize("name", _PAGES)
def test_pages_are_of_grafanas_types(compile_page: Compile, name: str) -> None:
    """The compiler has nothing to say of any page or panel."""
    assert compile_page(_PAGES[name]) == ""


def _panel(page: dict[str, Any], kind: str) -> Any:
    return next(panel for panel in page["panels"] if panel["type"] == kind)


def _unknown_key(page: dict[str, Any]) -> None:
    page["editible"] = False


def _wrong_kind_of_value(page: dict[str, Any]) -> None:
    page["refresh"] = 30


def _wrong_crosshair(page: dict[str, Any]) -> None:
    page["graphTooltip"] = 7


def _unknown_kind_of_panel(page: dict[str, Any]) -> None:
    _panel(page, "stat")["type"] = "singlestat"


def _unknown_mode(page: dict[str, Any]) -> None:
    _panel(page, "stat")["options"]["colorMode"] = "rainbow"


def _unknown_field(page: dict[str, Any]) -> None:
    _panel(page, "timeseries")["fieldConfig"]["defaults"]["custom"]["lineWeight"] = 2


def _wrong_threshold(page: dict[str, Any]) -> None:
    _panel(page, "stat")["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] = "0"


def _query_without_a_letter(page: dict[str, Any]) -> None:
    del _panel(page, "timeseries")["targets"][0]["refId"]


@pytest.mark.parametrize(
    "spoil",
    [
        _unknown_key,
        _wrong_kind_of_value,
        _wrong_crosshair,
        _unknown_kind_of_panel,
        _unknown_mode,
        _unknown_field,
        _wrong_threshold,
        _query_without_a_letter,
    ],
)
def test_mistakes_are_found(compile_page: Compile, spoil: Callable[[dict[str, Any]], None]) -> None:
    """The check can fail: each of these is told."""
    page = copy.deepcopy(_PAGES["overview"])
    spoil(page)
    assert "error TS" in compile_page(page)
