"""The URL of a model server: what is asked, and what is shown."""

from __future__ import annotations

import pytest

from forwardscope.backends.server_url import ServerUrl


@pytest.mark.parametrize(
    ("url", "api", "root"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ("https://host", "https://host/v1", "https://host"),
        ("http://[::1]:8000", "http://[::1]:8000/v1", "http://[::1]:8000"),
        ("https://host/team/v1", "https://host/team/v1", "https://host/team"),
        ("https://host/openai", "https://host/openai", "https://host/openai"),
    ],
)
def test_api_and_root(url: str, api: str, root: str) -> None:
    """The API is below `/v1` unless the URL has a path; other endpoints are beside it."""
    parsed = ServerUrl.parse(url)
    assert (parsed.api, parsed.root) == (api, root)


@pytest.mark.parametrize(
    ("url", "address", "port"),
    [
        ("http://127.0.0.1:8000/v1", "127.0.0.1", 8000),
        ("http://[::1]:8000", "::1", 8000),
        ("https://Host/secret/v1", "host", 443),
        ("http://host", "host", 80),
    ],
)
def test_address_and_port(url: str, address: str, port: int) -> None:
    """Spans have the host without a path, which may be a secret, and the scheme's default port."""
    parsed = ServerUrl.parse(url)
    assert (parsed.address, parsed.port) == (address, port)


def test_name_has_no_path() -> None:
    """A path may be a secret."""
    assert ServerUrl.parse("https://host:8443/secret/v1").name == "https://host:8443"


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "ftp://host/v1",
        "http://",
        "http://host:secret",
        "http://user:secret@host/v1",
        "http://host/v1?key=secret",
        "http://host/v1#secret",
        "http://[secret",
    ],
)
def test_mistakes(url: str) -> None:
    """A URL that is none, or has a secret, is refused without a word of it."""
    with pytest.raises(ValueError, match="must") as refused:
        ServerUrl.parse(url)
    assert "secret" not in str(refused.value)
