"""The groups of a suite's runs at a Pushgateway: which are active, which are deleted."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from forwardscope.telemetry import run_names
from forwardscope.telemetry.delivery import JOB
from forwardscope.telemetry.http import (
    address_of,
    authorization,
    secrets_of,
    send,
    untraced,
)

__all__ = ["Group", "delete", "groups"]

_TIMEOUT_S: Final = 1.0
_MAX_BYTES: Final = 32 * 1024 * 1024
#: Time without a push after which a run is dead; a live one pushes every 10 seconds.
_DEAD_S: Final = 35.0


@dataclass(frozen=True, slots=True)
class Group:
    """The group of one run.

    Attributes:
        labels: Labels of the group, `job` among them.
        alive: Whether its run is active and has pushed within the last 35 seconds.
        ended_s: End of its run, in seconds since the epoch; None while it is alive.
    """

    labels: Mapping[str, str]
    alive: bool
    ended_s: float | None


def groups(url: str, labels: Mapping[str, str]) -> list[Group]:
    """Return the groups of forwardscope that have certain labels among theirs.

    Args:
        url: URL of the gateway; a user and password in it are sent as basic authentication.
        labels: The labels.

    Raises:
        OSError: The gateway does not answer within a second, or with an error.
        ValueError: It is not a Pushgateway.
    """
    wanted = {"job": JOB, **labels}.items()
    answer, now_s = _ask("GET", url, "/api/v1/metrics")
    try:
        found = json.loads(answer)["data"]
        return [_group(one, now_s) for one in found if wanted <= one["labels"].items()]
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError("no Pushgateway") from error


def delete(url: str, group: Group) -> None:
    """Delete a group.

    Raises:
        OSError: The gateway does not answer within a second, or with an error.
    """
    others = {name: value for name, value in group.labels.items() if name != "job"}
    pairs = [f"{name}@base64/{_path_base64(value)}" for name, value in others.items()]
    _ask("DELETE", url, "/".join([f"/metrics/job/{JOB}", *pairs]))


def _group(found: dict[str, Any], now_s: float) -> Group:
    pushed_s = _value(found, "push_time_seconds") or 0.0
    alive = _value(found, run_names.RUN_ACTIVE.name) == 1 and now_s - pushed_s < _DEAD_S
    ended_s = _value(found, run_names.RUN_END.name) or 0.0
    return Group(found["labels"], alive, None if alive else ended_s)


def _value(found: dict[str, Any], metric: str) -> float | None:
    family = found.get(metric)
    return float(family["metrics"][0]["value"]) if family else None


def _path_base64(value: str) -> str:
    return urlsafe_b64encode(value.encode()).decode() or "="


def _ask(method: str, url: str, path: str) -> tuple[bytes, float]:
    """Return the gateway's answer and its time, in seconds since the epoch."""
    parts = urlsplit(address_of(url).rstrip("/") + path)
    address = parts._replace(query=urlsplit(url).query).geturl()
    with untraced():
        answer, headers = send(
            *(method, address, authorization(url), None, _TIMEOUT_S),
            most=_MAX_BYTES,
            secrets=secrets_of(url),
        )
    date = headers.get("Date")
    return answer, parsedate_to_datetime(date).timestamp() if date else time.time()
