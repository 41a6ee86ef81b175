"""Requests to a model server: bounded in time and size, repeated where that may help."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx
import msgspec

from forwardscope.backends.openai.proxies import proxy_hint, unusable
from forwardscope.backends.openai.retries import THROTTLED, Retries, may_pass
from forwardscope.backends.server_url import KEY_VARIABLE, ServerUrl
from forwardscope.core.forks import reset_in_children
from forwardscope.core.server_requests import Exchange
from forwardscope.errors import ServerError, ViewError
from forwardscope.telemetry.http import refusal, root_cause
from forwardscope.telemetry.propagation import trace_headers

__all__ = ["MAX_BODY_BYTES", "NOT_FINITE", "ServerClient"]

#: Bytes of the longest answer that is read.
MAX_BODY_BYTES: Final = 64 << 20
#: What vLLM says where it would have to answer NaN.
NOT_FINITE: Final = "not JSON compliant"
_CONNECT_S: Final = 10.0
#: Time between two looks at whether a stop was requested, while waiting for the next attempt.
_STEP_S: Final = 0.1
#: What OpenSSL says of an answer without TLS.
_OTHER_PROTOCOL: Final = "WRONG_VERSION_NUMBER"
_WITHOUT_TLS: Final = "does it speak http:// and not https://?"
_SLOW: Final = "raise model.timeout, or lower model.concurrency"
_NO_URL: Final = "correct model.server"
_NO_API: Final = "; does model.server end with /v1, where vLLM has its API?"
_JSON: Final = {"Content-Type": "application/json"}
#: Operations below the API; the others are below the server's root.
_OF_THE_API: Final = ("completions", "models", "load_lora_adapter", "unload_lora_adapter")


@dataclass(frozen=True, slots=True)
class _Answer:
    """What became of one attempt.

    Attributes:
        status: Status of the answer; None without one.
        body: Its body.
        problem: What is wrong with it; empty for an answer with status 2xx.
        transient: Whether another attempt may have an answer.
        retry_after: The header of this name.
        is_gone: Whether nothing accepts connections there.
        fix: What to correct where there is no answer; empty where that is not known.
    """

    status: int | None
    body: bytes = b""
    problem: str = ""
    transient: bool = False
    retry_after: str | None = None
    is_gone: bool = False
    fix: str = ""


class ServerClient:
    """Sends requests over connections that are kept open. Safe under threads and forks.

    A request is repeated where the server asks to come back later (429, 502, 503, 504), fails at
    a completion (500), or where a connection fails to a server whose last request had an answer.
    So the time of the retries is never spent on a server that is not there, and once on one that
    is lost.

    Args:
        url: Where the server is.
        timeout_s: Longest time of one attempt.
        connections: Most connections at a time.
        retries: When and how often requests are repeated.
        stopping: Says whether a stop was requested, which ends the waiting for the next attempt.
        observe: Receives each request when it is over.
        transport: Carries the requests in place of the network.

    Raises:
        ServerError: The key in the environment is no text for a header, or a proxy or a
            certificate there cannot be used.

    Attributes:
        url: Where the server is.
        observe: Receives each request when it is over.
    """

    def __init__(
        self,
        url: ServerUrl,
        *,
        timeout_s: float = 300.0,
        connections: int = 4,
        retries: Retries | None = None,
        stopping: Callable[[], bool] = lambda: False,
        observe: Callable[[Exchange], None] = lambda _: None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url: Final = url
        self.observe = observe
        self._key = os.environ.get(KEY_VARIABLE, "")
        if not (self._key.isascii() and self._key.isprintable()) or self._key != self._key.strip():
            raise ServerError(
                f"{KEY_VARIABLE} has characters that no HTTP header can have, or begins or ends "
                "with a space"
            )
        self._timeout_s = timeout_s
        self._connections = connections
        self._retries = retries or Retries()
        self._stopping = stopping
        self._transport = transport
        self._has_answered = False
        self.after_fork()
        reset_in_children(self)

    def after_fork(self) -> None:
        """Make a client without connections."""
        headers = {"Accept-Encoding": "identity", "User-Agent": "forwardscope"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            self._http = httpx.Client(
                headers=headers,
                timeout=httpx.Timeout(self._timeout_s, connect=min(_CONNECT_S, self._timeout_s)),
                limits=httpx.Limits(
                    max_connections=self._connections, max_keepalive_connections=self._connections
                ),
                transport=self._transport,
            )
        except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
            raise ServerError(unusable(error)) from None  # it may quote a proxy's password

    def request(self, operation: str, body: dict[str, Any] | None = None) -> bytes:
        """Return the body of an answer with status 2xx.

        Args:
            operation: Last part of the endpoint's path.
            body: The request, sent as JSON; None sends a GET.

        Raises:
            ServerError: There is no such answer. The message has no key and no prompt.
            ViewError: The client is closed.
        """
        start = time.perf_counter()
        attempt = throttled = 0
        while True:
            attempt += 1
            answer = self._attempt(operation, body)
            throttled += answer.status == THROTTLED
            lost = answer.status is None and not self._has_answered
            if lost or not answer.transient or attempt == self._retries.attempts:
                break
            if not self._wait(self._retries.wait_s(attempt, answer.retry_after)):
                break
        self._has_answered = answer.status is not None
        seconds = time.perf_counter() - start
        failed = bool(answer.problem)
        self.observe(Exchange(operation, seconds, attempt, throttled, answer.status, failed))
        if answer.problem:
            said = self._sentence(operation, answer, attempt)
            raise ServerError(said, answer.status, is_gone=answer.is_gone)
        return answer.body

    def close(self) -> None:
        """Close the connections; may be called twice."""
        self._http.close()

    def _attempt(self, operation: str, body: dict[str, Any] | None) -> _Answer:
        if self._http.is_closed:
            raise ViewError("the connection to the model server is closed; load the backend again")
        base = self.url.api if operation in _OF_THE_API else self.url.root
        content = None if body is None else msgspec.json.encode(body)
        try:
            with self._http.stream(
                "GET" if content is None else "POST",
                f"{base}/{operation}",
                content=content,
                headers=trace_headers() | ({} if content is None else _JSON),
            ) as response:
                return self._read(response, operation, _has_text(body))
        except httpx.ConnectTimeout:
            return _Answer(None, problem="it cannot be reached in time", transient=True)
        except httpx.TimeoutException:
            return _Answer(None, problem=f"no answer within {self._timeout_s:g} s", fix=_SLOW)
        except httpx.HTTPError as error:
            problem = root_cause(error, self._secrets)
            is_gone = _is_refused(error) and not proxy_hint(self.url)  # else it is the proxy
            fix = _WITHOUT_TLS if _OTHER_PROTOCOL in problem else ""
            return _Answer(None, problem=problem, transient=True, is_gone=is_gone, fix=fix)
        except (httpx.InvalidURL, UnicodeError) as error:
            return _Answer(None, problem=root_cause(error, self._secrets), fix=_NO_URL)

    def _read(self, response: httpx.Response, operation: str, has_text: bool) -> _Answer:
        status, retry_after = response.status_code, response.headers.get("Retry-After")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            return _Answer(status, problem="the answer is compressed, which was not requested")
        body, end = bytearray(), time.monotonic() + self._timeout_s
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                return _Answer(status, problem=f"the answer has over {MAX_BODY_BYTES >> 20} MiB")
            if time.monotonic() > end:
                return _Answer(status, problem=f"no whole answer within {self._timeout_s:g} s")
        said = "" if response.is_success else _message(bytes(body))
        transient = may_pass(status, operation) and NOT_FINITE not in said
        if has_text:  # which the message may quote
            said = NOT_FINITE if NOT_FINITE in said else ""
        problem = refusal(
            str(response.url),
            status,
            response.reason_phrase,
            response.headers.get("Location"),
            said,
            self._secrets,
        )
        return _Answer(status, bytes(body), problem or "", transient, retry_after)

    @property
    def _secrets(self) -> tuple[str, ...]:
        return (self._key,) if self._key else ()

    def _wait(self, seconds: float) -> bool:
        """Wait; return whether no stop was requested."""
        end = time.monotonic() + seconds
        while not self._stopping() and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _STEP_S))
        return not self._stopping()

    def _sentence(self, operation: str, answer: _Answer, attempts: int) -> str:
        tries = f" (after {attempts} attempts)" if attempts > 1 else ""
        where = f"the model server {self.url.name}"
        if answer.status is None:
            fix = answer.fix or "is it running, and is model.server its URL?"
            hint = proxy_hint(self.url) if answer.transient else ""
            return f"{where} did not answer /{operation}: {answer.problem}{tries}; {fix}{hint}"
        if answer.status in (401, 403):
            fix = "put its API key into the variable" if not self._key else "correct the key in"
            return f"{where} refused /{operation}: HTTP {answer.status}; {fix} {KEY_VARIABLE}"
        fix = _NO_API if answer.status == 404 and operation == "models" else ""
        return f"{where} did not accept /{operation}: {answer.problem}{tries}{fix}"


def _is_refused(error: BaseException | None) -> bool:
    """Whether the cause of an error is that nothing listens at an address."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _has_text(body: dict[str, Any] | None) -> bool:
    """Whether a request has the text of a prompt, which an answer's message may quote."""
    prompt = None if body is None else body.get("prompt")
    texts = prompt if isinstance(prompt, list) else [prompt]
    return body is not None and ("messages" in body or any(isinstance(one, str) for one in texts))


def _message(body: bytes) -> str:
    """Return the message of an error's answer: that of OpenAI's form, else the whole text."""
    text = body[:65_536].decode(errors="replace")
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    return found if isinstance(found, str) else text
