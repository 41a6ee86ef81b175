"""JUnit XML."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from forwardscope.analysis.junit import Case, as_junit


def read(*cases: Case) -> ET.Element:
    """Return the test suite of cases."""
    (suite,) = ET.fromstring(as_junit("a suite", cases))  # noqa: S314 - our own
    return suite


def test_each_case_has_its_outcome() -> None:
    """A case that did not pass has its message; the suite has the numbers of each outcome."""
    suite = read(
        Case("one", "pass", "fine", 1.5),
        Case("two", "failure", "worse"),
        Case("three", "error", "broken"),
        Case("four", "skipped", "no adapter"),
    )
    numbers = {"name": "a suite", "tests": "4", "failures": "1", "errors": "1", "skipped": "1"}
    assert suite.attrib == numbers
    cases = {
        case.attrib["name"]: [(one.tag, one.attrib["message"]) for one in case] for case in suite
    }
    assert cases == {
        "one": [],
        "two": [("failure", "worse")],
        "three": [("error", "broken")],
        "four": [("skipped", "no adapter")],
    }
    assert [case.attrib.get("time") for case in suite] == ["1.500", None, None, None]
    assert read(Case("one", "pass", "")).attrib["failures"] == "0"


def test_texts_are_escaped() -> None:
    """What XML forbids is escaped; markup stays text."""
    (case,) = read(Case('<p> & "q" \x1b[31m\x00', "failure", "\x00<"))
    assert case.attrib["name"] == r'<p> & "q" \x1b[31m\x00'
    assert case[0].attrib["message"] == r"\x00<"
