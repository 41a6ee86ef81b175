"""What Ray says of lost workers and failed connections, in a few words."""

from __future__ import annotations

import re

from forwardscope.text import MAX_SENTENCE, shown

__all__ = ["last_line", "why_lost", "why_no_connection"]


def why_lost(error: Exception) -> str:
    """Return why a worker was lost, as a part of a sentence."""
    text = str(error)
    if "running low on memory" in text:
        return "Ray ended its process, since its machine was running low on memory"
    code = re.search(r"exit code (\d+)", text)
    if code is not None:
        return f"its process ended with exit code {code[1]}"
    if "connection error code" in text:
        return "its process was killed, or crashed"
    return last_line(error)


def why_no_connection(error: Exception) -> str:
    """Return why there is no connection to a cluster: Ray's first paragraph, as one line."""
    first = str(error).strip().partition("\n\n")[0]
    return shown(" ".join(first.split()) or type(error).__name__, MAX_SENTENCE)


def last_line(error: Exception) -> str:
    """Return the last line of a message, which names the exception at the end of a traceback."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return shown(lines[-1].strip(), MAX_SENTENCE)
