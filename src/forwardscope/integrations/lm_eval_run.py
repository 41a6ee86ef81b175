"""lm-evaluation-harness's own command line, with its model behind a cache."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import lm_eval
from lm_eval.__main__ import cli_evaluate
from lm_eval.api import registry
from lm_eval.evaluator import simple_evaluate
from lm_eval.utils import simple_parse_args_string

from forwardscope.integrations.lm_eval import CachedLM, wrap
from forwardscope.integrations.replaced import replaced
from forwardscope.integrations.tool_numbers import finite_number
from forwardscope.integrations.tool_run import About, Measured, ToolRun, spec_of_tool
from forwardscope.probes import Outcome, Verdict
from forwardscope.suite.spec import SuiteSpec
from forwardscope.text import printable

__all__ = ["OpenRun", "run_harness"]

_NAME: Final = "lm-eval"
#: Standard normal quantile of a two-sided 95 % interval.
_95: Final = 1.96

#: Opens the run of a suite; at its end what was recorded is delivered.
OpenRun = Callable[[SuiteSpec], AbstractContextManager[ToolRun]]


def run_harness(
    arguments: Sequence[str], open_run: OpenRun, *, name: str = _NAME, revision: str | None = None
) -> bool:
    """Run a command line of lm-evaluation-harness in this process.

    Its model answers from the cache of the run that `open_run` opens for its evaluation.
    The rest, all files and all output among it, is as without us.

    Args:
        arguments: The arguments after `lm-eval`.
        open_run: Opens the run of an evaluation.
        name: Name of the suite.
        revision: As in `wrap`.

    Returns:
        Whether a model was evaluated.

    Raises:
        SystemExit: The harness ended with a status.
        BaseException: Whatever the harness raised, unchanged.
    """
    evaluated = False

    def evaluate(model: Any, model_args: Any = None, **settings: Any) -> Any:
        nonlocal evaluated
        evaluated = True
        named = _revision_of(revision, model, model_args)
        with open_run(_spec(name, model, model_args)) as run, _wrapping(run, named) as wrapped:
            results = simple_evaluate(model=model, model_args=model_args, **settings)
            run.finish(_measured(results, run), _about(wrapped))
        return results

    with (
        replaced(lm_eval, "simple_evaluate", evaluate),
        replaced(sys, "argv", [_NAME, *arguments]),
    ):
        cli_evaluate()
    return evaluated


@contextmanager
def _wrapping(run: ToolRun, revision: str | None) -> Iterator[list[CachedLM]]:
    """Wrap each model that the harness makes; yield a list that receives them."""
    wrapped: list[CachedLM] = []
    find = registry.get_model

    class Maker:
        """A class of models in the eyes of the harness, whose instances are wrapped."""

        def __init__(self, name: str) -> None:
            self._class = find(name)

        def __getattr__(self, name: str) -> Any:
            made = getattr(self._class, name)
            if not name.startswith("create_from_arg_"):
                return made

            def make(*given: Any, **more: Any) -> CachedLM:
                model = made(*given, **more)
                cached = wrap(
                    model,
                    instrumentation=run.instrumentation,
                    revision=revision,
                    run=run,
                    just_loaded=not run.spec.cache.rehash,
                )
                wrapped.append(cached)
                return cached

            return make

    with replaced(registry, "get_model", Maker):
        yield wrapped


def _spec(name: str, model: Any, model_args: Any) -> SuiteSpec:
    """Return the suite of an evaluation, with the names of its model and adapter."""
    given = _given(model_args)
    named = given.get("pretrained") or given.get("model") or model
    return spec_of_tool(name, str(named), str(given.get("peft") or given.get("delta") or ""))


def _revision_of(revision: str | None, model: Any, model_args: Any) -> str | None:
    """Return a revision that holds for these arguments of a model alone.

    One text may be given for several models. The arguments are digested, as they may have a
    secret.
    """
    if revision is None:
        return None
    from forwardscope.backends.digests import digest_of  # noqa: PLC0415 - imports torch

    given = {name: repr(value) for name, value in _given(model_args).items()}
    return f"{revision} of {digest_of({'': str(model), **given})}"


def _given(model_args: Any) -> Mapping[str, Any]:
    """Return the arguments of a model by name."""
    given = simple_parse_args_string(model_args) if isinstance(model_args, str) else model_args
    return given if isinstance(given, Mapping) else {}


def _about(wrapped: Sequence[CachedLM]) -> About:
    if not wrapped:
        return About(
            warnings=(
                "lm-eval made its model in a way that is not known here, so that nothing was "
                "cached and nothing counted; please report its version",
            )
        )
    identity = wrapped[-1].identity
    warnings = [] if identity.reason is None else [f"answers are not stored: {identity.reason}"]
    tuned = identity.view != "base"
    return About(
        identity=identity.digest or "",
        base_identity=None if tuned else identity.digest,
        tuned_identity=identity.digest if tuned else None,
        dtype=identity.dtype,
        device=identity.device,
        warnings=warnings,
    )


def _measured(results: Mapping[str, Any] | None, run: ToolRun) -> dict[str, Measured]:
    """Return what an evaluation measured, by task; in a rank that has no results, no values."""
    if results is None:
        other = Outcome(Verdict.SKIP, "the values are in the result of rank 0")
        return {task: Measured(_NAME, other) for task in run.probes}
    return {
        task: Measured(_NAME, _outcome(results, task, values))
        for task, values in results["results"].items()
        if task in results["configs"]
    }


def _outcome(results: Mapping[str, Any], task: str, values: Mapping[str, Any]) -> Outcome:
    """Return the first metric of a task as its value, and all of them as evidence."""
    metrics = {
        name: value
        for name, value in values.items()
        if "," in name and isinstance(value, int | float) and not isinstance(value, bool)
    }
    main = next((name for name in metrics if "_stderr," not in name), None)
    n = results.get("n-samples", {}).get(task, {}).get("effective")
    if main is None:
        return Outcome(Verdict.PASS, "has run; it has no metric that is a number", n=n)
    metric, _, filtered = main.partition(",")
    value, error = metrics[main], finite_number(metrics.get(f"{metric}_stderr,{filtered}"))
    better = results.get("higher_is_better", {}).get(task, {}).get(metric)
    message = f"{metric} {value:.4g}"
    if error:  # 0 of equal values says nothing of others
        message += f", standard error {error:.2g}"
    if filtered != "none":
        message += f" (filter {filtered})"
    return Outcome(
        verdict=Verdict.PASS,
        message=message,
        raw=finite_number(value),
        ci_95=(value - _95 * error, value + _95 * error) if error else None,
        n=n,
        lower_is_better=better is False,
        evidence={"metrics": {printable(name): finite_number(metrics[name]) for name in metrics}},
    )
