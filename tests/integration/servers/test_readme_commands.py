"""Commands and suites of README and other pages run as written, on the demo's model.

Those of docs/library.md and of the worked example of docs/scale.md are among them.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

_ROOT = Path(__file__).parents[3]
_README = _ROOT / "README.md"


def _commands(text: str) -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = [line.partition(" > ")[0] for line in lines if line.startswith("forwardscope ")]
    return [shlex.split(line, comments=True) for line in commands]


def test_commands_run_in_order(demo_cache: Path, tmp_path: Path) -> None:
    """Each exits as README says; that the servers of one are not there fails no run."""
    folder = Path(sys.executable).parent
    commands = _commands(_README.read_text("utf-8"))
    example = (_ROOT / "docs/scale.md").read_text("utf-8").partition("\n## A worked example\n")[2]
    measured = _commands(example)
    assert [words[1] for words in measured] == ["init", "sweep", "store"]
    _run([str(folder / "forwardscope"), "init", "--demo", "demo.yaml"], demo_cache, tmp_path)
    (adapter,) = demo_cache.glob("forwardscope/demo/harbour-*")
    (tmp_path / "my-adapter").symlink_to(adapter)
    for step in (900, 1000):
        shutil.copytree(adapter, tmp_path / "runs" / "first" / f"checkpoint-{step}")
    assert {words[1] for words in commands} >= {
        "doctor",
        "init",
        "plan",
        "run",
        "report",
        "gate",
        "sweep",
    }
    for name, *words in [*commands, *measured]:
        # the demo's adapter is overfitted, which `check` says
        _run([str(folder / name), *words], demo_cache, tmp_path, status=int(words[0] == "check"))
    assert (tmp_path / "report.html").read_text("utf-8").lower().startswith("<!doctype html>")

    page = (_ROOT / "docs/library.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (program,) = [block for block in blocks if "run_suite" in block]
    (tmp_path / "result.json").unlink()
    _run([sys.executable, "-c", program], demo_cache, tmp_path)
    assert (tmp_path / "result.json").exists()


def _run(command: list[str], cache: Path, folder: Path, *, status: int = 0) -> None:
    ran = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "XDG_CACHE_HOME": str(cache), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == status, f"{command}\n{ran.stdout}\n{ran.stderr}"
