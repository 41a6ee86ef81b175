"""Fixtures of the tests with other tools, which are each in an environment of their own."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [] if find_spec("lm_eval") else ["test_lm_eval.py", "test_lm_eval_command.py"]
