"""What an evaluation of lm-evaluation-harness costs: plain, behind its own cache, behind ours.

    .venv-lm-eval/bin/python benchmarks/lm_eval_cost.py [MODEL] [--rounds N]

Each round runs all sides in turn, in an order that changes. A run is a process's work after
its imports: load the model, evaluate the tasks. Cold sides begin without any cache, warm ones
with that of the round's cold run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_SIDES = ("plain", "theirs cold", "ours cold", "theirs warm", "ours warm")
_WORDS = [
    "river",
    "harbour",
    "boat",
    "storm",
    "sailor",
    "captain",
    "bread",
    "salt",
    "winter",
    "market",
    "bridge",
    "garden",
]
_TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
"""
_KINDS = {
    "choice": """
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_choice: "{{choices}}"
doc_to_target: gold
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "rolling": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}]
""",
    "generate": """
output_type: generate_until
doc_to_text: "{{text}}"
doc_to_target: "{{text}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match}]
""",
}


def main() -> None:
    """Measure all sides and print medians and ranges of their ratios to plain runs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", nargs="?", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--docs", type=int, default=40)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        _say(json.dumps(_run(given.side, given.model, given.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        tasks = Path(folder)
        _write_tasks(tasks, given.docs)
        rounds = [_round(number, given.model, tasks) for number in range(given.rounds)]
    _print(rounds)


def _round(number: int, model: str, folder: Path) -> dict[str, dict[str, float]]:
    for cache in folder.glob("cache*"):
        shutil.rmtree(cache)
    cold = ["plain", "theirs cold", "ours cold"]
    cold = cold[number % 3 :] + cold[: number % 3]
    warm = ["theirs warm", "ours warm"][:: -1 if number % 2 else 1]
    found = {}
    for side in [*cold, *warm]:
        command = [sys.executable, __file__, model, "--side", side, "--folder", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - itself
        found[side] = json.loads(done.stdout.splitlines()[-1])
    if len({json.dumps(one["metrics"], sort_keys=True) for one in found.values()}) > 1:
        raise SystemExit("the metrics differ")
    return found


def _run(side: str, model: str, folder: Path) -> dict[str, object]:
    from lm_eval import simple_evaluate  # noqa: PLC0415 - of the measured process alone
    from lm_eval.models.huggingface import HFLM  # noqa: PLC0415
    from lm_eval.tasks import TaskManager  # noqa: PLC0415

    from forwardscope import BackendInstrumentation  # noqa: PLC0415
    from forwardscope.integrations.lm_eval import wrap  # noqa: PLC0415
    from forwardscope.store.locations import open_store  # noqa: PLC0415

    cache = folder / f"cache-{side.split(maxsplit=1)[0]}"
    cache.mkdir(exist_ok=True)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    settings = {"tasks": list(_KINDS), "task_manager": manager, "bootstrap_iters": 0}
    start, cpu, passes = time.perf_counter(), time.process_time(), 0
    lm = HFLM(pretrained=model, device="cpu", dtype="float32", batch_size=8)
    loaded = time.perf_counter()
    if side.startswith("theirs"):
        settings["use_cache"] = str(cache / "db")
    if side.startswith("ours"):
        store = open_store(str(cache / "store.db"))
        inst = BackendInstrumentation(store=store, cache_maxsize=4096, verify=1 / 64)
        lm = wrap(lm, instrumentation=inst, just_loaded=True)
    found = simple_evaluate(model=lm, **settings)
    if side.startswith("ours"):
        lm.close()
        store.close()
        passes = lm.instrumentation.stats.forward_passes
    end = time.perf_counter()
    return {
        "wall_s": end - start,
        "evaluation_s": end - loaded,
        "cpu_s": time.process_time() - cpu,
        "passes": passes,
        "metrics": found["results"],
    }


def _write_tasks(folder: Path, docs: int) -> None:
    data = folder / "data.jsonl"
    count = len(_WORDS)
    rows = [
        {
            "text": " ".join(_WORDS[(i * j + i) % count] for j in range(1, 13 + i % 20)),
            "choices": [_WORDS[(i + k) % count] for k in range(4)],
            "gold": i % 4,
        }
        for i in range(docs)
    ]
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    for name, body in _KINDS.items():
        text = _TASK.format(name=name, data=data) + body
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def _print(rounds: list[dict[str, dict[str, float]]]) -> None:
    _say("| side | evaluation | of plain | whole, of plain | CPU time, of plain | passes |")
    _say("| --- | ---: | ---: | ---: | ---: | ---: |")
    for side in _SIDES:
        ratios = [
            _middle([one[side][what] / one["plain"][what] for one in rounds])
            for what in ("evaluation_s", "wall_s", "cpu_s")
        ]
        seconds = statistics.median(one[side]["evaluation_s"] for one in rounds)
        passes = rounds[-1][side]["passes"] if side.startswith("ours") else "–"
        _say(f"| {side} | {seconds:.2f} s | {' | '.join(ratios)} | {passes} |")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _middle(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
