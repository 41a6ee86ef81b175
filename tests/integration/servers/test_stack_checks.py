"""The stack's files, as the programs see them that they are made for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from . import stack

pytestmark = pytest.mark.long

_CHECKOUT = Path(__file__).parents[3]
#: How each folder with the stack's files comes to be; all pass the same checks.
_TREES: dict[str, Callable[[Path], Path]] = {
    "checkout": lambda _: _CHECKOUT,
    "exported": lambda folder: _exported(folder),
}


def _exported(folder: Path) -> Path:
    command = [sys.executable, "-m", "forwardscope", "dashboards", "export", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module", params=_TREES)
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stack's files."""
    return _TREES[request.param](tmp_path_factory.mktemp(request.param))


def test_prometheus_takes_its_configuration(tree: Path) -> None:
    """With the rules and the targets that it names."""
    stack.check_prometheus(tree)


def test_rules_are_clean(tree: Path) -> None:
    """There is no mistake in them, and nothing to complain of."""
    stack.check_rules(tree)


def test_rules_do_what_their_tests_say(tree: Path) -> None:
    """Each alert fires and does not fire where it should."""
    stack.check_rule_tests(tree)


def test_rules_do_so_in_prometheus_3(tree: Path) -> None:
    """No test depends on a sample at the left edge of a range."""
    stack.check_rule_tests_without_left_edges(tree)


def test_alertmanager_takes_its_configuration(tree: Path) -> None:
    """With its receivers and what inhibits what."""
    stack.check_alertmanager(tree)


def test_the_stack_is_a_compose_file(tree: Path) -> None:
    """It follows the schema of the Compose Specification."""
    stack.check_compose(tree)


def test_all_that_is_asked_for_is_exported(tree: Path) -> None:
    """No dashboard and no rule asks for a metric or a label that this version does not have."""
    stack.check_queries(tree)
