"""Suites: files, plans, runs and results."""

from forwardscope.suite.backend import load_backend
from forwardscope.suite.loading import load_suite
from forwardscope.suite.observer import Observer, Observers, RunStarted
from forwardscope.suite.plan import Plan, expected_forward_passes, plan_suite
from forwardscope.suite.result import ProbeResult, SuiteResult
from forwardscope.suite.run_metrics import RunMetrics
from forwardscope.suite.runner import run_suite
from forwardscope.suite.spec import SuiteSpec

__all__ = [
    "Observer",
    "Observers",
    "Plan",
    "ProbeResult",
    "RunMetrics",
    "RunStarted",
    "SuiteResult",
    "SuiteSpec",
    "expected_forward_passes",
    "load_backend",
    "load_suite",
    "plan_suite",
    "run_suite",
]
