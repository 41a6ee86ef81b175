"""Where a Redis or Valkey store is: a URL, without the password in anything that is shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from forwardscope.errors import StoreError
from forwardscope.text import shown

__all__ = ["PASSWORD_VARIABLE", "SCHEMES", "RedisAddress"]

#: Schemes of URLs, by whether the connection is encrypted.
SCHEMES: Final = {"redis": False, "rediss": True, "valkey": False, "valkeys": True}
PASSWORD_VARIABLE: Final = "FORWARDSCOPE_STORE_PASSWORD"  # noqa: S105 - a name

_TLS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MAX_TTL_S: Final = 100 * 365 * 86400
_DEFAULT_PORT: Final = 6379


@dataclass(frozen=True)
class RedisAddress:
    """A server, the database on it, and how to connect.

    Attributes:
        name: The URL without password and query; for users.
        arguments: Arguments of a client of redis-py, the password among them.
        ttl_s: Seconds after which an entry expires; None for never.
    """

    name: str
    arguments: Mapping[str, Any] = field(repr=False)
    ttl_s: int | None = None

    @classmethod
    def parse(cls, url: str) -> RedisAddress:
        """Return the address that a URL names.

        A password that the URL does not have is that of `FORWARDSCOPE_STORE_PASSWORD`.

        Raises:
            StoreError: The URL has a mistake; the message has no password.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or _DEFAULT_PORT
        except ValueError:  # its text may quote the password
            raise StoreError(
                "the store's URL cannot be read; escape @, :, / in a password"
            ) from None
        scheme = parts.scheme.lower()
        if not host:
            raise StoreError(f"the store's URL has no host; give {scheme}://HOST:PORT/DATABASE")
        user = unquote(parts.username or "")
        database = _database(parts.path)
        query = _query(parts)
        bracketed = f"[{host}]" if ":" in host else host
        name = f"{scheme}://{user + '@' if user else ''}{bracketed}:{port}/{database}"
        password = unquote(parts.password or "") or os.environ.get(PASSWORD_VARIABLE)
        arguments = {
            "host": host,
            "port": port,
            "db": database,
            "username": user or None,
            "password": password or None,
            **_tls(query, encrypted=SCHEMES[scheme]),
        }
        ttl = query.get("ttl")
        return cls(shown(name), arguments, None if ttl is None else _ttl(ttl))


def _database(path: str) -> int:
    number = path.strip("/")
    if number and not re.fullmatch(r"\d{1,9}", number, re.ASCII):
        raise StoreError("the path of the store's URL is the number of a database, such as /0")
    return int(number or 0)


def _query(parts: SplitResult) -> dict[str, str]:
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in query:
        if name != "ttl" and name not in _TLS:
            allowed = ", ".join(("ttl", *_TLS))
            raise StoreError(f"the store's URL has an unknown option {shown(name)}; use {allowed}")
    return query


def _tls(query: Mapping[str, str], *, encrypted: bool) -> dict[str, Any]:
    """Return the arguments of TLS; certificates are always verified."""
    given: dict[str, Any] = {name: query[name] for name in _TLS if name in query}
    if not encrypted:
        if given:
            raise StoreError(f"{next(iter(given))} needs an encrypted connection: use rediss://")
        return {}
    if "ssl_check_hostname" in given:
        if given["ssl_check_hostname"] not in ("true", "false"):
            raise StoreError("ssl_check_hostname is true or false")
        given["ssl_check_hostname"] = given["ssl_check_hostname"] == "true"
    return {"ssl": True, "ssl_cert_reqs": "required", "ssl_check_hostname": True} | given


def _ttl(text: str) -> int:
    found = re.fullmatch(r"(\d{1,9})([smhdw])", text, re.ASCII)
    seconds = 0 if found is None else int(found[1]) * _SECONDS[found[2]]
    if not 0 < seconds <= _MAX_TTL_S:
        raise StoreError(f"ttl is a time such as 12h, 7d or 4w; got {shown(text)}")
    return seconds
