"""Rules of all HTTP exports: no redirect, a bounded answer, no secret in what is shown."""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from typing import Final
from urllib.parse import parse_qsl, unquote, urljoin, urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request

from opentelemetry import context as otel_context

from forwardscope.text import printable

__all__ = [
    "MAX_ANSWER_BYTES",
    "address_of",
    "authorization",
    "can_be_untraced",
    "one_line",
    "read_bounded",
    "refusal",
    "root_cause",
    "secrets_of",
    "send",
    "shown_url",
    "untraced",
    "without_secrets",
]

#: Bytes of an answer that are read; the connection of a longer one is closed.
MAX_ANSWER_BYTES: Final = 65_536
#: Characters of a reason of another program, such as a server's message.
MAX_REASON_CHARS: Final = 500
#: Name of the key of a context in which HTTP clients are not traced; private, hence `doctor`.
_UNTRACED: Final = "_SUPPRESS_INSTRUMENTATION_KEY"
#: Paths that are shown; any other may hold a token.
_KNOWN_PATHS: Final = ("/v1/traces", "/v1/metrics")
_HOST_AND_PORT: Final = re.compile(r"[\w.-]+:\d+")
#: A shorter text is not replaced in messages, since it may be a part of any word.
_MIN_SECRET_CHARS: Final = 4


def shown_url(url: str) -> str:
    """Return a URL without all that may be a secret: scheme, host and port.

    An address of gRPC, such as `collector:4317`, is shown as one.

    The path is kept only if it is one of OTLP's. User, password, query, fragment
    and every other path are left out.
    """
    try:
        parts = urlsplit(
            url if "://" in url or not _HOST_AND_PORT.fullmatch(url) else f"grpc://{url}"
        )
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None:
        return "a URL without a host"
    host = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/")
    where = host if port is None else f"{host}:{port}"
    return printable(f"{parts.scheme}://{where}{path if path in _KNOWN_PATHS else ''}")


def secrets_of(url: str) -> tuple[str, ...]:
    """Return the parts of a URL that `shown_url` leaves out, as written and unquoted."""
    parts = urlsplit(url)
    values = [value for _, value in parse_qsl(parts.query)]
    path = "" if parts.path.rstrip("/") in _KNOWN_PATHS else parts.path.strip("/")
    sent = authorization(url).get("Authorization", "").removeprefix("Basic ")
    found = [parts.netloc.rpartition("@")[0], parts.password, sent, parts.query, *values, path]
    return tuple(text for one in found if one for text in (one, unquote(one)))


def without_secrets(text: str, secrets: tuple[str, ...]) -> str:
    """Replace secrets in a text, such as a server's message that quotes a token."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _MIN_SECRET_CHARS:
            text = text.replace(secret, "***")
    return text


def one_line(text: str, secrets: tuple[str, ...] = ()) -> str:
    """Return text of another program as one printable line of bounded length.

    Secrets are replaced first: what is escaped or cut no longer contains them as written.
    """
    line = printable(" ".join(without_secrets(text, secrets).split()))
    if len(line) <= MAX_REASON_CHARS:
        return line
    start = line[: MAX_REASON_CHARS - 1]
    return f"{start.rpartition(' ')[0] or start}…"  # no part of a word, which may be a token


def root_cause(error: BaseException, secrets: tuple[str, ...] = ()) -> str:
    """Return the innermost cause of an error as one line, such as "Connection refused"."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    if isinstance(error, OSError):
        return one_line(error.strerror or str(error) or type(error).__name__, secrets)
    return one_line(f"{type(error).__name__}: {error}", secrets)


def refusal(
    url: str,
    status: int,
    phrase: str,
    location: str | None,
    message: str,
    secrets: tuple[str, ...] = (),
) -> str | None:
    """Return why a server did not accept a request; None if its status is 2xx.

    Args:
        url: The URL of the request.
        status: The status of the answer.
        phrase: The status's reason phrase.
        location: The answer's header Location.
        message: What the answer says. HTML, which is for browsers, is left out, and
            so is what was not decoded, or is the phrase again.
        secrets: Texts that are replaced.
    """
    if status // 100 == 2:
        return None
    if status // 100 == 3:
        with suppress(ValueError):  # what is no URL is not joined
            location = urljoin(url, location or "")
        return f"HTTP {status}: redirects to {shown_url(location or '')}, which is not followed"
    said = message.strip()
    if said.startswith("<") or "\ufffd" in said or said == phrase:
        said = ""
    return one_line(f"HTTP {status}: {phrase}{': ' if said else ''}{said}", secrets)


def read_bounded(
    read: Callable[[int], bytes], size: int, deadline: float, most: int = MAX_ANSWER_BYTES
) -> bytes:
    """Read an answer until it ends, has `most` bytes, or the deadline is over.

    Args:
        read: Returns at most as many bytes as its argument; none at the end.
        size: Bytes of one call of `read`.
        deadline: When to stop, as `time.monotonic` counts. A call of `read` that
            waits is not interrupted.
        most: Bytes that are read.
    """
    body = bytearray()
    while len(body) < most and time.monotonic() < deadline:
        chunk = read(size)
        if not chunk:
            break
        body += chunk
    return bytes(body)


def authorization(url: str) -> dict[str, str]:
    """Return the header of basic authentication for a URL; empty without a user in it."""
    parts = urlsplit(url)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return {"Authorization": f"Basic {b64encode(pair).decode('ascii')}"}


def address_of(url: str) -> str:
    """Return a URL without user, password, query and fragment."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()


def send(
    method: str,
    url: str,
    headers: Mapping[str, str],
    data: bytes | None,
    timeout_s: float,
    most: int = MAX_ANSWER_BYTES,
    secrets: tuple[str, ...] = (),
) -> tuple[bytes, Mapping[str, str]]:
    """Send a request to a server or its proxy; redirects are not followed.

    Args:
        method: The method, such as POST.
        url: A URL of scheme http or https, without user and password.
        headers: Headers of the request.
        data: Its body.
        timeout_s: Time for each step of the connection, and for the body of the answer.
        most: Bytes of the answer that are read.
        secrets: Texts that are replaced in the reason of a failure.

    Returns:
        The answer and its headers.

    Raises:
        OSError: The server was not reached, or did not accept the request.
    """
    request = Request(url, data, dict(headers), method=method)  # noqa: S310 - callers check it
    host = request.host
    opener = OpenerDirector()  # has no handler of redirects
    for handler in (ProxyHandler(), HTTPHandler(), HTTPSHandler()):
        opener.add_handler(handler)
    try:
        with opener.open(request, timeout=timeout_s) as got:
            body = read_bounded(got.read1, 8192, time.monotonic() + timeout_s, most)
            location = got.headers.get("Location")
            said = body.decode(errors="replace")
            reason = refusal(url, got.status, got.reason, location, said, secrets)
    except (OSError, HTTPException) as error:
        proxy = "" if request.host == host else f"proxy {request.host}: "
        reason = one_line(proxy + root_cause(error, secrets))
    if reason is not None:
        raise OSError(reason)
    return body, got.headers


def can_be_untraced() -> bool:
    """Whether the installed OpenTelemetry API has what `untraced` needs."""
    return hasattr(otel_context, _UNTRACED)


@contextmanager
def untraced() -> Iterator[None]:
    """Suppress the spans of HTTP clients that an instrumentation of OpenTelemetry makes."""
    key = getattr(otel_context, _UNTRACED, "suppress_instrumentation")
    token = otel_context.attach(otel_context.set_value(key, True))
    try:
        yield
    finally:
        otel_context.detach(token)
