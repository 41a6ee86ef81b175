"""Addresses of traces: which settings are valid, and where an address comes from."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from forwardscope.errors import UserError
from forwardscope.suite.spec import TelemetrySpec
from forwardscope.suite.trace_url import check_environment, trace_url

_ID = "0af7651916cd43dd8448eb211c80319c"
_JAEGER = "http://127.0.0.1:16686/trace/{trace_id}"
_NOT_VALID = [
    "http://127.0.0.1:16686/trace/",
    "javascript:alert('{trace_id}')",
    "file:///{trace_id}",
    "http:///trace/{trace_id}",
    "http://[/{trace_id}",
    "https://user:secret@127.0.0.1/{trace_id}",
    "{trace_id}",
]


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variable of the machine."""
    monkeypatch.delenv("FORWARDSCOPE_TRACES_URL", raising=False)


def test_the_suite_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a setting of the suite the variable has the address; without both there is none."""
    assert trace_url(_ID, None) is None
    assert trace_url(_ID, _JAEGER) == f"http://127.0.0.1:16686/trace/{_ID}"
    monkeypatch.setenv("FORWARDSCOPE_TRACES_URL", "https://traces/{trace_id}?id={trace_id}")
    assert trace_url(_ID, None) == f"https://traces/{_ID}?id={_ID}"
    assert trace_url(_ID, _JAEGER) == f"http://127.0.0.1:16686/trace/{_ID}"
    monkeypatch.setenv("FORWARDSCOPE_TRACES_URL", "")
    assert trace_url(_ID, None) is None


@pytest.mark.parametrize("trace_id", [None, "", "4bf9", _ID.upper(), f"{_ID}\n", "\x1b[2J" * 8])
def test_no_address_without_a_valid_id(trace_id: str | None) -> None:
    """A run that was not sampled has none, and no text of a file takes its place."""
    assert trace_url(trace_id, _JAEGER) is None


def test_address_is_printable() -> None:
    """Control characters of the setting are escaped; other braces stay."""
    assert trace_url(_ID, "http://h/{a}\x1b[2J{trace_id}") == f"http://h/{{a}}\\x1b[2J{_ID}"


@pytest.mark.parametrize("url", _NOT_VALID)
def test_settings_that_are_not_valid(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only http and https with a host and a place for the id, and without credentials."""
    with pytest.raises(ValidationError, match="must be an http or https URL"):
        TelemetrySpec(traces_url=url)
    monkeypatch.setenv("FORWARDSCOPE_TRACES_URL", url)
    for use in (check_environment, lambda: trace_url(_ID, None)):
        with pytest.raises(UserError, match="FORWARDSCOPE_TRACES_URL must be an http or https"):
            use()
