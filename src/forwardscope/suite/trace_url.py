"""Addresses of runs in a trace viewer."""

from __future__ import annotations

import os
import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator

from forwardscope.errors import UserError
from forwardscope.text import printable

__all__ = ["TRACES_URL_VARIABLE", "TracesUrl", "check_environment", "trace_url"]

#: Variable with the `traces_url` of suites that have none.
TRACES_URL_VARIABLE: Final = "FORWARDSCOPE_TRACES_URL"
_PLACE: Final = "{trace_id}"
_TRACE_ID: Final = re.compile("[0-9a-f]{32}")


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
    except ValueError:
        valid = False
    if not valid or _PLACE not in url:
        raise ValueError(
            f"must be an http or https URL with {_PLACE} and without a user name, such as "
            f"http://127.0.0.1:16686/trace/{_PLACE}"
        )
    return url


#: Address of a trace in a viewer, with `{trace_id}` in place of the id.
TracesUrl = Annotated[str, AfterValidator(_checked)]


def check_environment() -> None:
    """Check the environment variable.

    Raises:
        UserError: It is set, and its value is not valid.
    """
    _of_environment()


def trace_url(trace_id: str | None, traces_url: str | None) -> str | None:
    """Return the address of a run's trace, as printable text.

    Args:
        trace_id: Id of the trace, 32 hex digits; None for a run that was not sampled.
        traces_url: The valid setting of the suite; None for that of the environment.

    Returns:
        The address; None if there is no valid id, or no setting.

    Raises:
        UserError: The variable is needed, and its value is not valid.
    """
    if not _TRACE_ID.fullmatch(trace_id or ""):
        return None
    template = traces_url or _of_environment()
    return None if template is None else printable(template.replace(_PLACE, trace_id or ""))


def _of_environment() -> str | None:
    url = os.environ.get(TRACES_URL_VARIABLE, "").strip()
    try:
        return _checked(url) if url else None
    except ValueError as error:
        message = f"{TRACES_URL_VARIABLE} {error}; got {printable(url)!r}"
        raise UserError(message) from error
