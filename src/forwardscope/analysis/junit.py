"""JUnit XML, which CI systems show as tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree as ET

from forwardscope.text import printable

__all__ = ["Case", "as_junit"]


@dataclass(frozen=True, slots=True)
class Case:
    """A test case.

    Attributes:
        name: Its name.
        outcome: What became of it.
        message: Why it did not pass; of no use where it passed.
        seconds: Its duration, or None.
    """

    name: str
    outcome: Literal["pass", "failure", "error", "skipped"]
    message: str
    seconds: float | None = None


def as_junit(title: str, cases: Sequence[Case]) -> str:
    """Return a test suite of cases."""
    numbers = {"name": printable(title), "tests": str(len(cases))}
    for key, outcome in {"failures": "failure", "errors": "error", "skipped": "skipped"}.items():
        if number := sum(case.outcome == outcome for case in cases):
            numbers[key] = str(number)
    suite = ET.Element("testsuite", {"failures": "0", **numbers})
    for case in cases:
        # as XML requires, the texts are printable
        found = {"classname": printable(title), "name": printable(case.name)}
        if case.seconds is not None:
            found["time"] = f"{case.seconds:.3f}"
        element = ET.SubElement(suite, "testcase", found)
        if case.outcome != "pass":
            ET.SubElement(element, case.outcome, message=printable(case.message))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
