"""`forwardscope demo`, as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Demo:
    """One run of the demo.

    Attributes:
        stdout: Its report.
        result: Its result.
        records: The lines of its trace.
    """

    stdout: str
    result: dict[str, Any]
    records: list[dict[str, Any]]

    @property
    def values(self) -> list[tuple[Any, ...]]:
        """All that its probes measured."""
        kept = ("name", "verdict", "score", "raw", "z_score", "ci_95", "evidence")
        return [tuple(probe[name] for name in kept) for probe in self.result["probes"]]


def run_demo(folder: Path, cache: Path, *options: object) -> Demo:
    """Run the demo.

    Args:
        folder: For its files.
        cache: Where the model and the adapter are kept, once they are made.
        *options: More of them.
    """
    command = [sys.executable, "-m", "forwardscope", "demo", *map(str, options)]
    env = {**os.environ, "XDG_CACHE_HOME": str(cache), "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [*command, "--trace", "t.jsonl", "--json", "r.json"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    lines = (folder / "t.jsonl").read_text().splitlines()
    result = json.loads((folder / "r.json").read_text())
    return Demo(ran.stdout, result, [json.loads(line) for line in lines])
