"""What a sweep costs against a run for each adapter.

    python benchmarks/sweep_cost.py [--suite demo|check] [--adapters N]

Both sides measure the same adapters of the demo's model, SmolLM2-135M-Instruct: its adapter with
its change scaled, as checkpoints of a training have it. Runs are separate processes without a
store; the sweep is one process, with the store of its folder. Every process starts with the same
remembered digests of weights. Prints wall and CPU times (a busy machine changes the first), their
ratios, and forward passes by view family, which must be paid once for the base.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.resources import files
from pathlib import Path
from string import Template

from safetensors.torch import load_file, save_file

from forwardscope.cli.demo import demo_suite_text
from forwardscope.core.keys import view_family
from forwardscope.suite.loading import parse_suite
from forwardscope.suite.result import SuiteResult

_WEIGHTS = "adapter_model.safetensors"
_PROGRAM = [sys.executable, "-c", "from forwardscope.cli import main; main()"]


def main() -> None:
    """Measure both sides, one adapter after the other in turn, and print them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--suite", choices=["demo", "check"], default="demo")
    parser.add_argument("--adapters", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        suite, adapters = _prepare(folder, given.suite, given.adapters)
        _run(["run", suite, "--adapter", adapters[0], "--no-store"])  # remembers digests
        runs = []
        for adapter in adapters:
            result = str(Path(adapter) / "result.json")
            runs.append(_run(["run", suite, "--adapter", adapter, "--no-store", "--json", result]))
        wall_s, cpu_s = map(sum, zip(*runs, strict=True))
        took = {"separate runs": (wall_s, cpu_s)}
        pattern = str(folder / "runs" / "checkpoint-*")
        took["sweep"] = _run(["sweep", suite, "--adapters", pattern, "-o", str(folder / "sweep")])
        alone = [_result(Path(adapter) / "result.json") for adapter in adapters]
        names = [Path(adapter).name for adapter in adapters]
        swept = [_result(folder / "sweep" / "runs" / name / "result.json") for name in names]
    _print(took, {"separate runs": alone, "sweep": swept})


def _prepare(folder: Path, name: str, count: int) -> tuple[str, list[str]]:
    """Write the suite and the adapters; return their paths."""
    demo = demo_suite_text(quiet=True)
    model = parse_suite(demo, "demo.yaml").model
    if name == "check":
        text = (files("forwardscope.suite") / "check.yaml").read_text(encoding="utf-8")
        paths = {"model": model.path, "kind": "adapter", "tuned": model.adapter}
        demo = Template(text).substitute(**paths, device="cpu", chat="false", prompts="")
    suite = folder / "suite.yaml"
    suite.write_text("\n".join(one for one in demo.splitlines() if not one.startswith("cache:")))
    adapters = []
    for number in range(1, count + 1):
        adapter = folder / "runs" / f"checkpoint-{100 * number}"
        shutil.copytree(str(model.adapter), adapter)
        tensors = load_file(adapter / _WEIGHTS)
        scaled = {
            key: (one * number / count if "lora_B" in key else one).contiguous()
            for key, one in tensors.items()
        }
        save_file(scaled, adapter / _WEIGHTS)
        adapters.append(str(adapter))
    return str(suite), adapters


def _run(arguments: list[str]) -> tuple[float, float]:
    """Run the program; return its wall and CPU time, in seconds."""
    start, cpu_start = time.perf_counter(), _cpu_of_children()
    environment = {**os.environ, "FORWARDSCOPE_STORE": ""}
    done = subprocess.run(  # noqa: S603 - this program
        [*_PROGRAM, *arguments], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode not in (0, 1):  # 1: a probe did not pass
        raise SystemExit(done.stderr)
    return time.perf_counter() - start, _cpu_of_children() - cpu_start


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _result(path: Path) -> SuiteResult:
    return SuiteResult.model_validate_json(path.read_bytes())


def _print(took: dict[str, tuple[float, float]], results: dict[str, list[SuiteResult]]) -> None:
    for side, found in results.items():
        passes: Counter[str] = Counter()
        for result in found:
            for one in result.series:
                passes[view_family(one.view_id)] += one.forward_passes
        wall_s, cpu_s = took[side]
        _say(f"{side}: {wall_s:.1f} s, CPU {cpu_s:.1f} s, forward passes {json.dumps(passes)}")
    (runs_s, runs_cpu_s), (sweep_s, sweep_cpu_s) = took["separate runs"], took["sweep"]
    _say(f"sweep / separate runs: wall {sweep_s / runs_s:.2f}, CPU {sweep_cpu_s / runs_cpu_s:.2f}")
    pairs = zip(results["separate runs"], results["sweep"], strict=True)
    largest = max(
        abs((a.raw or 0.0) - (b.raw or 0.0))
        for one, other in pairs
        for a, b in zip(one.probes, other.probes, strict=True)
    )
    _say(f"largest difference of what a probe measured: {largest:.2g}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
