"""The URL of a model server, and the environment variable of its key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from forwardscope.telemetry.http import shown_url
from forwardscope.text import printable

__all__ = ["KEY_VARIABLE", "ServerUrl"]

#: Environment variable of the key that is sent as a bearer token.
KEY_VARIABLE: Final = "FORWARDSCOPE_API_KEY"
_API: Final = "/v1"
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """Where a server is.

    Attributes:
        api: URL of the OpenAI-compatible API, without a slash at its end.
        root: URL of the server's other endpoints, such as vLLM's `/tokenize`.
        name: Scheme, host and port, for users; a path may be a secret.
    """

    api: str
    root: str
    name: str

    @property
    def address(self) -> str:
        """Host, as printable text."""
        return printable(urlsplit(self.api).hostname or "")

    @property
    def port(self) -> int:
        """Port; by default that of the scheme."""
        parts = urlsplit(self.api)
        return _PORTS[parts.scheme] if parts.port is None else parts.port

    @classmethod
    def parse(cls, url: str) -> ServerUrl:
        """Return the parts of a URL such as `http://127.0.0.1:8000/v1`; `/v1` may be left out.

        Raises:
            ValueError: It is none. The message quotes nothing of it.
        """
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or parts.scheme not in ("http", "https"):
            raise ValueError("must be the URL of a server, such as http://127.0.0.1:8000/v1")
        if "@" in parts.netloc:
            raise ValueError(
                f"must have no user and no password; put a key into the variable {KEY_VARIABLE}"
            )
        if parts.query or parts.fragment:
            raise ValueError(f"must have no ? and no #; put a key into the variable {KEY_VARIABLE}")
        address = f"{parts.scheme}://{parts.netloc}"
        path = parts.path.rstrip("/") or _API
        return cls(address + path, address + path.removesuffix(_API), shown_url(address))
