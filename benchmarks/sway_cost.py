"""What a suite of dlm-sway costs: plain, on our instrumentation, and on our batched backend.

    .venv-sway/bin/python benchmarks/sway_cost.py MODEL ADAPTER [--rounds N] [--suite NAME]

Each round runs all sides in turn, in an order that changes, each in a process of its own. The
measured time is that of the suite; it excludes imports and loading. Cold sides begin with an
empty store, the warm one with that of the round's cold run. Values are compared with the plain
ones: for our instrumentation the largest difference must be 0.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from suite import probes

_SIDES = ("plain", "instrumented, cold", "instrumented, warm", "batched")
#: As in the example of dlm-sway's pytest plugin.
_EXAMPLE = [
    {"name": "null", "kind": "null_adapter", "runs": 3},
    {
        "name": "adherence",
        "kind": "delta_kl",
        "prompts": [
            "The capital of France is",
            "Two plus two equals",
            "Once upon a time",
            "The sky is",
        ],
    },
    {"name": "calibration", "kind": "calibration_drift", "items_limit": 50},
]
_SUITES = {"example": _EXAMPLE, "four probes": probes(6)}


def work(side: str, name: str, model: str, adapter: str, store: str) -> dict[str, Any]:
    """Run a suite on one side; return seconds, processor seconds and values."""
    from dlm_sway.backends import build  # noqa: PLC0415 - in the worker alone
    from dlm_sway.core.model import ModelSpec  # noqa: PLC0415
    from dlm_sway.suite import runner  # noqa: PLC0415
    from dlm_sway.suite.spec import SuiteModels, SwaySpec  # noqa: PLC0415

    entry = "forwardscope.integrations.dlm_sway:Backend"
    kind = {"kind": "custom", "entry_point": entry} if side == "batched" else {"kind": "hf"}
    own = ModelSpec(base=model, adapter=Path(adapter), dtype="fp32", device="cpu", **kind)
    null, *others = _SUITES[name]
    spec = SwaySpec(models=SuiteModels(base=own, ft=own), suite=[null | {"cache": False}, *others])
    backend = build(own)
    with nullcontext() if side == "plain" else _instrumented(store):
        began, busy = time.perf_counter(), time.process_time()
        result = runner.run(spec, backend)
        took = time.perf_counter() - began, time.process_time() - busy
    values = [(one.name, str(one.verdict), one.raw) for one in result.probes]
    return {"wall": took[0], "cpu": took[1], "values": values, "stats": result.backend_stats}


def _instrumented(store: str) -> Any:
    from forwardscope import BackendInstrumentation  # noqa: PLC0415 - in the worker alone
    from forwardscope.integrations.dlm_sway_run import instrumented  # noqa: PLC0415
    from forwardscope.integrations.tool_run import ToolRun  # noqa: PLC0415
    from forwardscope.store.locations import open_store  # noqa: PLC0415

    @contextmanager
    def open_run(spec: Any) -> Any:
        opened = open_store(store)
        inst = BackendInstrumentation(store=opened, cache_maxsize=4096)
        with ToolRun(spec, inst) as run:
            yield run
        inst.close()
        opened.close(5.0)

    return instrumented(open_run)


def _round(number: int, name: str, model: str, adapter: str) -> dict[str, dict[str, Any]]:
    turn = number % 2
    cold_and_warm, rest = _SIDES[1:3], (_SIDES[0], _SIDES[3])
    order = (*rest, *cold_and_warm) if turn else (*cold_and_warm, *reversed(rest))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for side in order:
            store = str(Path(folder) / ("batched.db" if side == "batched" else "store.db"))
            command = [sys.executable, __file__, model, adapter, "--work", side, name, store]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - itself
            found[side] = json.loads(done.stdout.splitlines()[-1])
            _say(f"{number} {side}: {found[side]['wall']:.1f} s")
    return found


def _report(name: str, rounds: list[dict[str, dict[str, Any]]]) -> None:
    _say(f"\n{name}: {len(rounds)} rounds, medians")
    for side in _SIDES:
        times = [[one[side][kind] for one in rounds] for kind in ("wall", "cpu")]
        ratios = [
            statistics.median(one["plain"][kind] / one[side][kind] for one in rounds)
            for kind in ("wall", "cpu")
        ]
        passes = rounds[0][side]["stats"]["forward_passes"]
        equal = all(one[side]["values"] == one["plain"]["values"] for one in rounds)
        apart = max(
            abs(mine[2] - other[2])
            for one in rounds
            for mine, other in zip(one[side]["values"], one["plain"]["values"], strict=True)
            if mine[2] is not None
        )
        verdicts = all(
            [value[1] for value in one[side]["values"]]
            == [value[1] for value in one["plain"]["values"]]
            for one in rounds
        )
        _say(
            f"{side:20} wall {statistics.median(times[0]):7.2f} s, cpu "
            f"{statistics.median(times[1]):7.2f} s; faster {ratios[0]:.2f}, cpu {ratios[1]:.2f}; "
            f"{passes} passes; verdicts equal {verdicts}, values equal {equal} ({apart:.1e} apart)"
        )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Run all rounds, or as a worker one side of one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("adapter")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--suite", choices=_SUITES, action="append")
    parser.add_argument("--work", nargs=3, metavar=("SIDE", "SUITE", "STORE"))
    given = parser.parse_args()
    if given.work:
        side, name, store = given.work
        _say(json.dumps(work(side, name, given.model, given.adapter, store)))
        return
    for name in given.suite or _SUITES:
        numbers = range(given.rounds)
        _report(name, [_round(number, name, given.model, given.adapter) for number in numbers])


if __name__ == "__main__":
    main()
