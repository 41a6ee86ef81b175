"""Delivery of a run's gauges to a Pushgateway, in a group of the run's own where it must."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry

from forwardscope.cli import gateway
from forwardscope.cli.targets import check_url
from forwardscope.suite.result import Delivery
from forwardscope.suite.run_metrics import RunMetrics
from forwardscope.suite.spec import SuiteSpec
from forwardscope.telemetry.delivery import JOB, Pusher, run_with_timeout
from forwardscope.telemetry.http import shown_url
from forwardscope.text import plural

__all__ = ["GatewayDelivery", "push_no_start"]

_T = TypeVar("_T")

#: Time to find the groups of a suite at the gateway.
_FIND_S: Final = 1.5
#: Time to push that a run could not start.
_NO_START_S: Final = 4.5


class GatewayDelivery:
    """Pushes a run's gauges.

    Args:
        url: URL of the gateway.
        registry: Registry with the gauges.
        metrics: The gauges.

    Raises:
        UserError: The URL is not valid.
    """

    def __init__(self, url: str, registry: CollectorRegistry, metrics: RunMetrics) -> None:
        check_url("pushgateway", url, ("http", "https"), "http://127.0.0.1:9091")
        self._url = url
        self._registry = registry
        self._metrics = metrics
        self._pusher: Pusher | None = None
        self._group: dict[str, str] = {}

    def publish(self) -> None:
        """Request a push without waiting for it; only the first call may wait for the gateway."""
        self.start().push()

    def begin_close(self) -> None:
        """Request the last push without waiting for it."""
        self.start().begin_close()

    def close(self, deadline: float) -> Delivery:
        """Wait for the last push until a time of `time.monotonic`; return the outcome.

        After a run that passed, the suite's other runs that ended before it began are
        deleted at the gateway. If this fails, the next run that passes tries again.
        """
        pusher = self.start()
        failure = pusher.close(max(0.0, deadline - time.monotonic()))
        to = f"Pushgateway {shown_url(self._url)}"
        if failure is not None:
            return Delivery(to=to, what=f"the run's end was not pushed: {failure}", ok=False)
        _within(deadline - time.monotonic(), self._delete_superseded)
        return Delivery(to=to, what=f"pushed {plural(pusher.pushes, 'time')}", ok=True)

    def start(self) -> Pusher:
        """Choose the group, at the first call, which may wait for the gateway; return the pusher.

        The group is the run's own while another run of the suite is active. What is wrong
        with the gateway is reported by a push.
        """
        if self._pusher is None:
            labels = self._metrics.labels
            main = {"job": JOB, **labels}
            found = _within(_FIND_S, lambda: gateway.groups(self._url, labels)) or []
            if any(one.alive and one.labels == main for one in found):
                labels = {**labels, "instance": uuid.uuid4().hex[:12]}
            self._group = {"job": JOB, **labels}
            self._pusher = Pusher(self._url, self._registry, labels)
        return self._pusher

    def _delete_superseded(self) -> None:
        since_s = self._metrics.passed_since_s
        if since_s is None:
            return
        for one in gateway.groups(self._url, self._metrics.labels):
            if one.ended_s is not None and one.ended_s < since_s and one.labels != self._group:
                gateway.delete(self._url, one)


def push_no_start(spec: SuiteSpec) -> None:
    """Push to the suite's Pushgateway, if it has one, that a run could not start."""
    url = spec.telemetry.pushgateway
    if url is None:
        return
    metrics, registry = RunMetrics(spec), CollectorRegistry()
    registry.register(metrics)
    metrics.run_finished(None)
    GatewayDelivery(url, registry, metrics).close(time.monotonic() + _NO_START_S)


def _within(timeout_s: float, ask: Callable[[], _T]) -> _T | None:
    """Return what a request gives, or None if it fails or does not end in time."""
    found: list[_T] = []
    run_with_timeout(max(0.0, timeout_s), lambda: found.append(ask()))
    return found[0] if found else None
