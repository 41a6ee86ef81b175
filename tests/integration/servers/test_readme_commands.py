"""The commands of README run as they are written, in order, on the demo's real model."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

_README = Path(__file__).parents[3] / "README.md"


def _commands() -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", _README.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("forwardscope ")]


def test_commands_run_in_order(demo_cache: Path, tmp_path: Path) -> None:
    """Each exits with 0; the servers that one of them names are not there, which fails no run."""
    folder = Path(sys.executable).parent
    env = {**os.environ, "XDG_CACHE_HOME": str(demo_cache), "HF_HUB_OFFLINE": "1"}
    commands = _commands()
    assert {words[1] for words in commands} >= {"doctor", "init", "plan", "run", "report", "gate"}
    for name, *words in commands:
        ran = subprocess.run(
            [folder / name, *words],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert ran.returncode == 0, f"{words}\n{ran.stdout}\n{ran.stderr}"
    assert (tmp_path / "report.html").read_text("utf-8").startswith("<!doctype html>")
