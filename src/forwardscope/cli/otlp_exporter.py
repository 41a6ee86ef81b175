"""An OTLP exporter that reports what a receiver accepted, and why not the rest."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import requests

from forwardscope.telemetry.delivery import run_with_timeout
from forwardscope.telemetry.http import root_cause, untraced

__all__ = ["OtlpExporter", "Sent"]

_Batch = TypeVar("_Batch")
_Given_contra = TypeVar("_Given_contra", contravariant=True)

#: Time to find the reason of a close that timed out, and to shut the exporter down.
_ABORT_S = 0.2


class Sent(NamedTuple):
    """Outcome of an export.

    Attributes:
        accepted: Number of spans or data points that the receiver accepted.
        failure: Why it did not accept the others; None if it accepted all.
    """

    accepted: int
    failure: str | None


class _SdkExporter(Protocol[_Given_contra]):
    """What the SDK's exporters of spans and of metrics have in common."""

    def export(self, batch: _Given_contra, /) -> Enum:
        """Send a batch; return a member named SUCCESS, or another one."""
        ...

    def shutdown(self) -> None:
        """Close the connection."""
        ...


class OtlpExporter(Generic[_Batch]):
    """An SDK exporter that reports how much of a batch was accepted, and why the rest was not.

    Args:
        exporter: The SDK's exporter of spans or of metrics.
        last_error: Returns why the last attempt failed; None if it succeeded or the
            reason is not known.
        rejected: Returns how many spans or data points the receiver rejected in its last
            answer, although it accepted the request.
        secrets: Texts that are replaced in the messages of exceptions.
        size: Returns the number of spans or data points of a batch.
    """

    def __init__(
        self,
        exporter: _SdkExporter[_Batch],
        last_error: Callable[[], str | None] = lambda: None,
        rejected: Callable[[], int] = lambda: 0,
        secrets: tuple[str, ...] = (),
        size: Callable[[Any], int] = len,
    ) -> None:
        self._exporter = exporter
        self._last_error = last_error
        self._rejected = rejected
        self._secrets = secrets
        self._size = size

    def last_error(self) -> str | None:
        """Return why the last attempt failed; None if it succeeded or that is not known."""
        return self._last_error()

    def send(self, batch: _Batch) -> Sent:
        """Export a batch."""
        try:
            with untraced():
                result = self._exporter.export(batch)
        except requests.RequestException as error:  # of the last attempt, in older SDKs
            return Sent(0, self.last_error() or root_cause(error, self._secrets))
        except Exception as error:  # noqa: BLE001 - the run continues, and its report has the reason
            return Sent(0, root_cause(error, self._secrets))
        if result.name != "SUCCESS":
            return Sent(0, self.last_error() or "not delivered")
        size = self._size(batch)
        rejected = min(max(self._rejected(), 0), size)
        if not rejected:
            return Sent(size, None)
        return Sent(size - rejected, self.last_error() or "rejected by the receiver")

    def send_within(self, timeout_s: float, batch: _Batch) -> Sent:
        """Export a batch in a thread, and leave it if the export does not end in time.

        The SDK's own timeout begins anew with each byte of an answer's headers.
        """
        sent: list[Sent] = []
        if run_with_timeout(timeout_s, lambda: sent.append(self.send(batch))) and sent:
            return sent[0]
        return Sent(0, self.last_error() or f"not delivered within {timeout_s:g} s")

    def shutdown(self) -> None:
        """Close the connection and stop retrying."""
        self._exporter.shutdown()

    def abort(self) -> str | None:
        """Shut down within a moment; return why the last attempt failed, if that is known."""
        reasons: list[str | None] = []

        def stop() -> None:
            reasons.append(self.last_error())
            self.shutdown()

        run_with_timeout(_ABORT_S, stop)
        return reasons[0] if reasons else None
