"""What a result says of any run: what was run, when, with which packages, and the counts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any, Final

from forwardscope.core.series import Counts, SeriesKey
from forwardscope.suite.observer import RunStarted

__all__ = ["facts_of_run"]

_PACKAGES: Final = ("forwardscope", "numpy", "torch", "transformers", "peft")


def facts_of_run(run: RunStarted, planned: Mapping[SeriesKey, Counts]) -> dict[str, Any]:
    """Return the fields of a `SuiteResult` that need no model and no probe.

    To be called when the lookups of the run are over.

    Args:
        run: The run.
        planned: Planned counts by series; empty for a run without a plan.
    """
    spec, counters = run.spec, run.counters
    return {
        "run_id": run.run_id,
        "trace_id": run.trace_id,
        "traces_url": spec.telemetry.traces_url,
        "suite": spec.name or "suite",
        "model": spec.model.label,
        "adapter": spec.model.adapter_label,
        "versions": _versions(),
        "seed": spec.defaults.seed,
        "period_s": spec.period_s,
        "started_at": datetime.fromtimestamp(run.started_s, UTC).isoformat(timespec="seconds"),
        "expected_forward_passes": run.expected_forward_passes,
        "backend_stats": counters.backend_stats().to_dict(),
        "series": counters.series_results(planned),
        "cache": counters.cache_use(),
        "store": counters.store_use(),
        "server": counters.server_use(),
        "prompt_tokens": counters.prompt_tokens(),
        "reconciliation": counters.reconciliation(),
    }


def _versions() -> dict[str, str]:
    versions = {"python": python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
