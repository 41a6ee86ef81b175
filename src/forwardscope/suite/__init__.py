"""A suite: what to run, running it, and what came of it."""

from forwardscope.suite.loading import load_suite
from forwardscope.suite.result import ProbeResult, SuiteResult
from forwardscope.suite.runner import Observer, run_suite
from forwardscope.suite.spec import SuiteSpec

__all__ = ["Observer", "ProbeResult", "SuiteResult", "SuiteSpec", "load_suite", "run_suite"]
