"""What a suite file may say."""

from __future__ import annotations

import reprlib
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from forwardscope.core.keys import printable
from forwardscope.probes import AdapterAblation, DeltaKL, NullAdapter, PromptCollapse
from forwardscope.telemetry.spans import DEFAULT_BUDGET

__all__ = [
    "TWO_OF_A_NAME",
    "CacheSpec",
    "Defaults",
    "ModelSpec",
    "Section",
    "SuiteSpec",
    "TelemetrySpec",
]

#: Type of the error where a name is taken; its context has the `index` of the second probe.
TWO_OF_A_NAME: Final = "two_of_a_name"

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

Text = Annotated[str, Field(min_length=1)]
AnyProbe = Annotated[
    NullAdapter | DeltaKL | AdapterAblation | PromptCollapse, Field(discriminator="kind")
]


class Section(BaseModel):
    """A mapping of a suite file: no unknown keys, no guessed types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelSpec(Section):
    """Which model and adapter, and how they are held.

    Attributes:
        path: A folder, a `.gguf` file or a hub id; a relative path is looked
            for beside the suite file first.
        name: What results, metrics and spans call it, so that they can be
            compared between machines; `path` as it is written by default.
        adapter: A folder or a hub id with a LoRA adapter.
        device: A torch device, or `auto`.
        dtype: What the weights are held as.
    """

    path: Text
    name: Text | None = None
    adapter: Text
    device: Text = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"

    @property
    def label(self) -> str:
        """What the model is called, as text that can be written anywhere."""
        return printable(self.name or self.path)


class Defaults(Section):
    """What probes use that do not say otherwise.

    Attributes:
        seed: For what probes draw at random.
        top_k: Tokens of a distribution that are kept.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    top_k: Annotated[int, Field(ge=1)] = 256


class CacheSpec(Section):
    """The forward cache.

    Attributes:
        enabled: False keeps nothing between calls.
        max_entries: The most entries.
        max_bytes: The most bytes, or none for no bound.
    """

    enabled: bool = True
    max_entries: Annotated[int, Field(ge=1)] = 256
    max_bytes: Annotated[int, Field(ge=1)] | None = None


def _span_budget(given: object) -> int | str:
    if given == "all":
        return "all"
    if type(given) is int and given >= 0:
        return given
    raise ValueError(f"must be a whole number or all; got {reprlib.repr(given)}")


class TelemetrySpec(Section):
    """Where spans and metrics go; the command line's options have the same names.

    Attributes:
        otlp: URL of an OTLP receiver for spans.
        otlp_protocol: How to speak to it; by default what
            OTEL_EXPORTER_OTLP_PROTOCOL says, else grpc on port 4317 and
            http/protobuf elsewhere.
        span_budget: Hit spans a probe, or `all`.
        metrics_port: Port of an endpoint for Prometheus; 0 takes a free one.
        metrics_address: Where it listens.
        metrics_linger: Seconds to wait, after the end, for one scrape.
        pushgateway: URL of a Pushgateway.
        metrics_file: File for node_exporter's textfile collector.
    """

    otlp: Text | None = None
    otlp_protocol: Literal["http/protobuf", "grpc"] | None = None
    span_budget: Annotated[int | str, PlainValidator(_span_budget)] = DEFAULT_BUDGET
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    metrics_address: Text = "127.0.0.1"
    metrics_linger: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] = 0.0
    pushgateway: Text | None = None
    metrics_file: Text | None = None


class SuiteSpec(Section):
    """A whole suite.

    Attributes:
        version: Of this format.
        name: Of the suite; its file's name by default.
        model: Which model and adapter.
        defaults: For the probes.
        cache: The forward cache.
        exactness: `fast` computes prompts in padded batches, `strict` each
            alone and whole.
        period: How often the suite is meant to run: a number and s, m, h, d or w.
        telemetry: Where spans and metrics go.
        probes: In the order in which they run.
    """

    version: Literal[1]
    name: Text | None = None
    model: ModelSpec
    defaults: Defaults = Defaults()
    cache: CacheSpec = CacheSpec()
    exactness: Literal["fast", "strict"] = "fast"
    period: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}[smhdw]$")] | None = None
    telemetry: TelemetrySpec = TelemetrySpec()
    probes: Annotated[tuple[AnyProbe, ...], Field(strict=False, min_length=1)]

    @property
    def period_s(self) -> int | None:
        """The period in seconds."""
        return None if self.period is None else int(self.period[:-1]) * _SECONDS[self.period[-1]]

    @model_validator(mode="after")
    def _names_differ(self) -> SuiteSpec:
        seen: set[str] = set()
        for index, probe in enumerate(self.probes):
            if probe.name in seen:
                raise PydanticCustomError(
                    TWO_OF_A_NAME,
                    "two probes are named {name}; give each its own name",
                    {"name": repr(probe.name), "index": index},
                )
            seen.add(probe.name)
        return self
