"""The tracer provider of the command line, and the resources of its spans and metrics."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from random import SystemRandom

from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from forwardscope.telemetry.http import one_line
from forwardscope.text import printable

__all__ = ["OwnRandomIds", "make_metrics_resource", "make_provider", "make_resource"]

#: Default of OpenTelemetry for the attributes and links of a span.
_DEFAULT_LIMIT = 128


class OwnRandomIds(RandomIdGenerator):
    """Ids that are random also where a program has seeded Python's random numbers.

    The SDK's own would repeat with the seed, and change what the program draws.
    """

    def __init__(self) -> None:
        self._random = SystemRandom()

    def generate_span_id(self) -> int:
        """Return an id of 64 bits, not 0."""
        return self._random.randrange(1, 1 << 64)

    def generate_trace_id(self) -> int:
        """Return an id of 128 bits, not 0."""
        return self._random.randrange(1, 1 << 128)


class _SpanResource(Resource):
    """A resource with one hash, which the encoder takes for each span and which is slow."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource.attributes, resource.schema_url)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash

    def merge(self, other: Resource) -> Resource:
        """Return a merged resource of this class; the provider adds the process to its own."""
        return _SpanResource(super().merge(other))


def make_resource() -> Resource:
    """Return the resource of the CLI's spans; the standard variables take precedence.

    It lacks the command line, which a detector may add and which may have a token.
    """
    defaults = Resource(_service())
    from_environment = {
        key: value
        for key, value in Resource.create().attributes.items()
        if not (key == SERVICE_NAME and str(value).startswith("unknown_service"))
        and not key.startswith("process.command")
    }
    return _SpanResource(defaults.merge(Resource(from_environment)))


def make_metrics_resource(instance: str) -> Resource:
    """Return the resource of metrics: the service and what OTEL_RESOURCE_ATTRIBUTES adds.

    It lacks what differs between processes, since Prometheus makes the labels `job`
    and `instance` of the service's name and instance, and each new instance would
    begin new series.

    Args:
        instance: Value of `service.instance.id`, the same in each run of a suite.
    """
    defaults = Resource({**_service(), SERVICE_INSTANCE_ID: instance})
    return defaults.merge(OTELResourceDetector().detect())


def _service() -> dict[str, str]:
    return {SERVICE_NAME: "forwardscope", SERVICE_VERSION: version("forwardscope")}


def make_provider(processor: SpanProcessor) -> TracerProvider:
    """Return the CLI's tracer provider; the standard variables configure sampling and limits."""
    provider = TracerProvider(
        resource=make_resource(),
        shutdown_on_exit=False,
        span_limits=_span_limits(),
        id_generator=OwnRandomIds(),
    )
    provider.add_span_processor(processor)
    return provider


def _span_limits() -> SpanLimits:
    """Return the limits of the standard variables, or the defaults where one is not valid.

    The variables may be meant for other programs, so a wrong one stops no run.
    """
    try:
        return SpanLimits()
    except ValueError as error:  # the message names the variable
        reason = printable(one_line(str(error)))
        warnings.warn(f"{reason}; default limits are used", RuntimeWarning, stacklevel=2)
    count, length = _DEFAULT_LIMIT, SpanLimits.UNSET
    return SpanLimits(count, count, count, count, count, count, length, length)
