"""The examples of README and docs/library.md run as they are written."""

from __future__ import annotations

import re
from importlib.metadata import metadata
from pathlib import Path

import pytest
import yaml

from forwardscope.suite import SuiteSpec

_ROOT = Path(__file__).parents[1]
_PAGES = [_ROOT / "README.md", _ROOT / "CONTRIBUTING.md", *sorted((_ROOT / "docs").rglob("*.md"))]
_NEEDS_MODEL = "load_backend"  # tests/integration runs it


def _blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


_EXAMPLES = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in _PAGES
    for number, block in enumerate(_blocks(page, "python"))
    if _NEEDS_MODEL not in block
]


@pytest.mark.parametrize("example", _EXAMPLES)
def test_python_examples_run(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block is a program of its own."""
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "example", "exec"), {})  # noqa: S102 - our own page


def test_the_example_in_readme_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The counts in the comment beside `print` are those that it prints."""
    monkeypatch.chdir(tmp_path)
    (example,) = _blocks(_ROOT / "README.md", "python")
    exec(compile(example, "example", "exec"), {})  # noqa: S102 - our own page
    (expected,) = re.findall(r"# (\{.*), …\}", example)
    assert capsys.readouterr().out.startswith(expected)


def test_the_suite_in_readme_is_valid() -> None:
    """Its one block of YAML is a whole suite."""
    (block,) = _blocks(_ROOT / "README.md", "yaml")
    assert len(SuiteSpec.model_validate(yaml.safe_load(block)).probes) == 5


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_extras_and_make_targets_exist(page: Path) -> None:
    """Each extra of a `pip install` and each target of a `make` that a page names."""
    text = page.read_text(encoding="utf-8")
    extras = {name for names in re.findall(r"'\.\[([\w,]+)\]'", text) for name in names.split(",")}
    assert extras <= set(metadata("forwardscope").get_all("Provides-Extra") or ())
    commands = "\n".join([*_blocks(page, "sh"), *re.findall(r"^.*`make .*$", text, re.MULTILINE)])
    targets = set(re.findall(r"(?:^|`)make ([a-z][\w-]*)", commands, re.MULTILINE))
    known = set(re.findall(r"^([\w-]+):", (_ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert targets <= known


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link of a page is a file or a folder of the checkout."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


def test_readme_links_each_page_once() -> None:
    """A newcomer finds every page from README or from a page that it links."""
    text = (_ROOT / "README.md").read_text(encoding="utf-8")
    names = ("install", "library", "models", "probes", "observe", "analyse")
    pages = ["CONTRIBUTING.md", *(f"docs/{name}.md" for name in names)]
    assert [text.count(f"]({page})") for page in pages] == [1] * len(pages)
