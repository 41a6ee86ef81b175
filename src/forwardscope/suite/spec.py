"""Schema of a suite file."""

from __future__ import annotations

import re
import reprlib
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BeforeValidator,
    ByteSize,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from forwardscope.probes.base import TopK
from forwardscope.store.sqlite import DEFAULT_MAX_BYTES, MIN_BYTES
from forwardscope.suite.any_probe import AnyProbe
from forwardscope.suite.model_spec import ModelSpec, Section, ServedModelSpec, Text, kind_of_model
from forwardscope.suite.trace_url import TracesUrl
from forwardscope.telemetry.spans import DEFAULT_BUDGET

__all__ = [
    "DUPLICATE_NAME",
    "CacheSpec",
    "Defaults",
    "ModelSpec",
    "ReportSpec",
    "Section",
    "ServedModelSpec",
    "Size",
    "SuiteSpec",
    "TelemetrySpec",
]

#: Error type of duplicate names of probes.
DUPLICATE_NAME: Final = "duplicate_name"

#: Sizes are whole numbers of 64 bits in results and in SQLite.
_MAX_SIZE: Final = 2**63

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

_SIZE: Final = r"^\s*[0-9]*\.?[0-9]+\s*[kmgtpeKMGTPE]?([iI]?[bB])?\s*$"


def _whole_size(value: Any) -> Any:
    """Return a size unchanged; `ByteSize` would read the 1 of `1,000 MB`, and ignore the rest."""
    if isinstance(value, str) and not re.match(_SIZE, value):
        raise PydanticCustomError("byte_size", "no size")
    return value


#: A number of bytes, also with a unit of 1000 or 1024.
Size = Annotated[
    ByteSize,
    BeforeValidator(_whole_size),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": _SIZE}]}
    ),
]


class Defaults(Section):
    """Settings for probes that do not have their own.

    Attributes:
        seed: Seed of random draws.
        top_k: Number of most probable tokens in each distribution.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    top_k: TopK = 256


class CacheSpec(Section):
    """Settings of the forward cache.

    Attributes:
        enabled: Whether values are stored between calls.
        max_entries: Maximum number of entries.
        max_bytes: Maximum bytes, also as `512MiB` or `0.5GiB`; None for no bound.
        store: Where values outlive the run: `default`, a path, the URL of a server, or None for
            nowhere.
        store_max_bytes: Maximum bytes of the store, also as `10GiB`.
        verify: Share of the store's hits that are computed again and compared.
        rehash: Whether weights are digested also where the digest of their files is
            remembered.
    """

    enabled: bool = True
    max_entries: Annotated[int, Field(ge=1)] = 4096
    max_bytes: Annotated[Size, Field(ge=1, lt=_MAX_SIZE)] | None = None
    store: Annotated[str, Field(min_length=1)] | None = None
    store_max_bytes: Annotated[Size, Field(ge=MIN_BYTES, lt=_MAX_SIZE)] = ByteSize(
        DEFAULT_MAX_BYTES
    )
    verify: Annotated[float, Field(ge=0, le=1)] = 1 / 64
    rehash: bool = False


def _span_budget(value: object) -> int | str:
    if value == "all":
        return "all"
    if type(value) is int and value >= 0:
        return value
    raise ValueError(f"must be a whole number or all; got {reprlib.repr(value)}")


class TelemetrySpec(Section):
    """Destinations of spans and metrics; command-line options of the same names override them.

    Attributes:
        otlp: URL of an OTLP receiver for spans.
        otlp_protocol: Protocol of the OTLP receiver; by default the value of
            OTEL_EXPORTER_OTLP_PROTOCOL, else grpc for port 4317 and
            http/protobuf for other ports.
        otlp_metrics: URL of an OTLP receiver for metrics.
        span_budget: Maximum hit spans per probe, or `all`.
        traces_url: Address of a trace in a viewer, with `{trace_id}` in place of the id;
            by default the value of FORWARDSCOPE_TRACES_URL.
        metrics_port: Port of the Prometheus endpoint; 0 selects a free one.
        metrics_address: Address of the Prometheus endpoint.
        metrics_linger: Seconds to wait for one scrape after the run.
        pushgateway: URL of a Pushgateway.
        metrics_file: File for node_exporter's textfile collector.
    """

    otlp: Text | None = None
    otlp_protocol: Literal["http/protobuf", "grpc"] | None = None
    otlp_metrics: Text | None = None
    span_budget: Annotated[
        int | str,
        PlainValidator(_span_budget),
        WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"const": "all"}]}),
    ] = DEFAULT_BUDGET
    traces_url: TracesUrl | None = None
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    metrics_address: Text = "127.0.0.1"
    metrics_linger: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] = 0.0
    pushgateway: Text | None = None
    metrics_file: Text | None = None


class ReportSpec(Section):
    """Settings of what reports show.

    Attributes:
        prompts: `show` writes the prompts' texts into the result, for the HTML report;
            `hide` writes their hashes alone.
    """

    prompts: Literal["hide", "show"] = "hide"


class SuiteSpec(Section):
    """A suite.

    Attributes:
        version: Version of this format.
        name: Name of the suite; by default the file name without its suffix, or
            `suite` without a file.
        model: Model and adapter, of this process or of a server.
        defaults: Settings for probes that do not have their own.
        cache: Settings of the forward cache.
        exactness: `fast` computes padded batches and reuses shared prefixes,
            `strict` computes each prompt alone.
        chat: Whether a prompt that is a text is a message of the user, which the model's chat
            template renders. Prompts that are messages are rendered anyway.
        period: Intended interval between runs: a number and s, m, h, d or w.
        telemetry: Destinations of spans and metrics.
        report: Settings of what reports show.
        show_errors: Whether the result has the messages of exceptions that are not of
            forwardscope; they may contain prompts. Otherwise it has only their classes.
        probes: Probes in the order in which they run.
    """

    version: Literal[1]
    name: Text | None = None
    model: Annotated[
        Annotated[ModelSpec, Tag(ModelSpec.kind)]
        | Annotated[ServedModelSpec, Tag(ServedModelSpec.kind)],
        Discriminator(kind_of_model),
    ]
    defaults: Defaults = Defaults()
    cache: CacheSpec = CacheSpec()
    exactness: Literal["fast", "strict"] = "fast"
    chat: bool = False
    period: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}[smhdw]$")] | None = None
    telemetry: TelemetrySpec = TelemetrySpec()
    report: ReportSpec = ReportSpec()
    show_errors: bool = False
    probes: Annotated[tuple[AnyProbe, ...], Field(strict=False, min_length=1)]

    @property
    def period_s(self) -> int | None:
        """The period in seconds, or None."""
        return None if self.period is None else int(self.period[:-1]) * _SECONDS[self.period[-1]]

    @model_validator(mode="after")
    def _check_names(self) -> SuiteSpec:
        seen: set[str] = set()
        for probe in self.probes:
            if probe.name in seen:
                raise PydanticCustomError(
                    DUPLICATE_NAME,
                    "two probes are named {name}; names must be unique",
                    {"name": repr(probe.name)},
                )
            seen.add(probe.name)
        return self
