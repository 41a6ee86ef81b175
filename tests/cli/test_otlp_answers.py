"""The adapter that checks what OTLP receivers answer."""

from __future__ import annotations

import pytest
import requests

from forwardscope.cli.otlp_answers import CheckedAdapter


def test_an_attempt_without_time_keeps_the_reason_of_the_one_before() -> None:
    """It is not made; the SDK's own error would be about the timeout."""
    adapter = CheckedAdapter(requests.adapters.HTTPAdapter())
    request = requests.Request("POST", "http://127.0.0.1:9/v1/traces").prepare()
    with pytest.raises(requests.ConnectionError):
        adapter.send(request, timeout=1.0)
    assert adapter.failure == "Connection refused"
    with pytest.raises(requests.Timeout):
        adapter.send(request, timeout=0.0)
    assert adapter.failure == "Connection refused"
    adapter.close()
