"""What the programs say of the stack's files that are to load them; of any folder that has them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

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
    tests = sorted((_prometheus(root) / "tests").glob("*.yml"))
    assert tests, f"no tests of rules under {root}"
    _run(program("promtool"), "test", "rules", *tests)


def check_rule_tests_without_left_edges(root: Path, folder: Path) -> None:
    """They do so too where a range leaves out its left edge, as in Prometheus 3.

    Each range is a millisecond shorter, so a sample on its edge is not in it.
    """
    copy = folder / "without-left-edges"
    shutil.copytree(_prometheus(root), copy / "dashboards" / "prometheus")
    for name in _RULES:
        file = _prometheus(copy) / name
        shorter, count = _RANGE.subn(_shorter, file.read_text())
        assert count, name
        file.write_text(shorter)
    check_rule_tests(copy)


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
