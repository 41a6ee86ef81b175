"""Fixtures of the tests with other tools, which are each in an environment of their own."""

from __future__ import annotations

from importlib.util import find_spec

_TESTS = {
    "lm_eval": ["test_lm_eval.py", "test_lm_eval_answers.py", "test_lm_eval_command.py"],
    "dlm_sway": ["test_sway.py", "test_sway_backend.py", "test_sway_command.py"],
}
collect_ignore = [file for tool, files in _TESTS.items() if not find_spec(tool) for file in files]
