"""What the programs say of the stack's files that are to load them; of any folder that has them."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from .processes import program

_RULES = ("recording.yml", "alerts-runs.yml", "alerts-services.yml")
_RANGE = re.compile(r"\[(\d+)([mhd])([\]:])")


def check_prometheus(root: Path) -> None:
    """Prometheus would load its configuration, with the rules and targets that it names."""
    config = _prometheus(root) / "prometheus.yml"
    _run(program("promtool"), "check", "config", "--lint=all", "--lint-fatal", config)


def check_rules(root: Path) -> None:
    """No rule has a mistake or is there twice."""
    rules = [_prometheus(root) / name for name in _RULES]
    _run(program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", *rules)


def check_rule_tests(root: Path) -> None:
    """The rules do what their tests say."""
    _test_rules(tuple(_rules_and_tests(root).items()))


def check_rule_tests_without_left_edges(root: Path) -> None:
    """They do so too where a range leaves out its left edge, as in Prometheus 3.

    Each range is a millisecond shorter, so a sample on its edge is not in it.
    """
    files = _rules_and_tests(root)
    for name in _RULES:
        files[name], count = _RANGE.subn(_shorter, files[name])
        assert count, name
    _test_rules(tuple(files.items()))


def _rules_and_tests(root: Path) -> dict[str, str]:
    folder = _prometheus(root)
    tests = sorted((folder / "tests").glob("*.yml"))
    assert tests, f"no tests of rules under {root}"
    return {
        str(file.relative_to(folder)): file.read_text()
        for file in (*(folder / name for name in _RULES), *tests)
    }


@cache
def _test_rules(files: tuple[tuple[str, str], ...]) -> None:
    """Let promtool run the tests; of equal files once, for it takes a minute."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "tests").mkdir()
        for name, text in files:
            (Path(folder) / name).write_text(text)
        _run(program("promtool"), "test", "rules", *sorted(Path(folder).glob("tests/*.yml")))


def _shorter(found: re.Match[str]) -> str:
    unit_ms = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}[found[2]]
    return f"[{int(found[1]) * unit_ms - 1}ms{found[3]}"


def check_alertmanager(root: Path) -> None:
    """Alertmanager would load its configuration."""
    config = root / "dashboards" / "alertmanager" / "alertmanager.yml"
    _run(program("amtool"), "check-config", config)


def check_compose(root: Path) -> None:
    """The stack is of the form that Docker Compose specifies."""
    schema = ("--builtin-schema", "vendor.compose-spec")
    _run(sys.executable, "-m", "check_jsonschema", *schema, root / "docker-compose.yml")


def check_queries(root: Path) -> None:
    """This version exports what the dashboards and rules ask for."""
    check = (sys.executable, "-m", "forwardscope", "dashboards", "check")
    _run(*check, root / "dashboards" / "grafana")
    _run(*check, _prometheus(root))


def _prometheus(root: Path) -> Path:
    return root / "dashboards" / "prometheus"


def _run(*command: str | Path) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
