"""Tasks of lm-evaluation-harness over local files, and models that count what they are asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

_TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
"""
_CHOICE = """
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: ["there", "mat", "together"]
doc_to_target: gold
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
_ROLLING = """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{q}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}]
"""
_GENERATE = """
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "{{q}}"
generation_kwargs: {until: ["."], max_gen_toks: 6, do_sample: false}
metric_list: [{metric: exact_match}]
"""
_SAMPLED = _GENERATE.replace("do_sample: false", "do_sample: true, temperature: 1.0") + "repeats: 2"
_TEXTS = (
    "the cat sat on the",
    "hello there world, the",
    "the other cats sat",
    "the weather is",
    "the cat sat",
)
#: Tasks of all kinds, of which two ask the same.
GREEDY = ("choice", "choice-again", "rolling", "generate")


def write_tasks(folder: Path) -> Path:
    """Write the tasks; return their folder."""
    data = folder / "data.jsonl"
    rows = [{"q": text, "gold": index % 3} for index, text in enumerate(_TEXTS)]
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    bodies = {
        "choice": _CHOICE,
        "choice-again": _CHOICE,
        "rolling": _ROLLING,
        "generate": _GENERATE,
        "sampled": _SAMPLED,
    }
    for name, body in bodies.items():
        text = _TASK.format(name=name, data=data) + body
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def evaluate(model: Any, tasks: Path, *names: str, **settings: Any) -> dict[str, Any]:
    """Return all metrics and all answers of some tasks."""
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found = simple_evaluate(
        model=model,
        tasks=list(names or GREEDY),
        task_manager=manager,
        bootstrap_iters=0,
        **settings,
    )
    answers = {
        task: [one["resps"] for one in sorted(samples, key=lambda one: one["doc_id"])]
        for task, samples in found["samples"].items()
    }
    return {"metrics": found["results"], "answers": answers}


def load(folder: Path, **settings: Any) -> HFLM:
    """Load a model on the CPU."""
    return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4, **settings)


def request(op: str, *arguments: Any, repeats: int = 1, task: str = "task") -> Instance:
    """Return a request as a task makes it."""
    return Instance(op, {}, arguments, 0, metadata=(task, 0, repeats))


class CountingLM(LM):
    """A model that answers with its name, and records how many requests each call has.

    Args:
        name: Its first letter decides each answer.
        fail_at: Number of answers after which it is interrupted; None for never.
    """

    def __init__(self, name: str = "a", fail_at: int | None = None, **_: Any) -> None:
        super().__init__()
        self.name = name
        self.fail_at = fail_at
        self.calls: list[int] = []

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Answer with a number of the model's name and the request."""
        return self._answers("loglikelihood", requests, lambda text: (-self._number(text), False))

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Likewise."""
        return self._answers("loglikelihood_rolling", requests, lambda text: -self._number(text))

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answer with the name and the number of the answer, so that no two are equal."""
        return self._answers("generate_until", requests, lambda _: f"{self.name}{sum(self.calls)}")

    def _answers(self, op: str, requests: list[Instance], answer: Any) -> list[Any]:
        self.calls.append(0)
        answers = []
        for one in requests:
            if self.fail_at is not None and sum(self.calls) >= self.fail_at:
                raise KeyboardInterrupt
            self.calls[-1] += 1
            answers.append(answer(json.dumps(one.args)))
            self.cache_hook.add_partial(op, one.args, answers[-1])
        return answers

    def _number(self, text: str) -> float:
        return float(sum(map(ord, self.name + text)))
