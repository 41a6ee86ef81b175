"""The options of a command that runs a suite: declared once, handed over as one object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer
from pydantic import ValidationError

from forwardscope.errors import UserError
from forwardscope.suite.spec import CacheSpec, SuiteSpec, TelemetrySpec

__all__ = ["RunOptions", "takes_run_options"]

_SPANS, _METRICS = "Spans", "Metrics"


def _span_budget(text: str) -> Any:
    if text == "all":
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise typer.BadParameter(f"{text!r} is neither a whole number nor all")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line says about a run, beyond the suite."""

    trace: Annotated[
        Path | None,
        typer.Option(help="Append one JSON line a lookup to this file.", metavar="FILE"),
    ] = None
    json: Annotated[
        Path | None, typer.Option(help="Write the result to this file.", metavar="FILE")
    ] = None
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print neither progress nor report.")
    ] = False
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Keep nothing between calls: pay for every question.")
    ] = False
    otlp: Annotated[
        str | None,
        typer.Option(
            help="Send spans to this OTLP receiver, for instance Jaeger. Without it the standard "
            "OTEL_EXPORTER_OTLP_* variables are looked at.",
            metavar="URL",
            rich_help_panel=_SPANS,
        ),
    ] = None
    otlp_protocol: Annotated[
        Literal["http/protobuf", "grpc"] | None,
        typer.Option(
            help="How to speak to it. By default grpc on port 4317, http/protobuf elsewhere.",
            rich_help_panel=_SPANS,
        ),
    ] = None
    span_budget: Annotated[
        str | None,
        typer.Option(
            parser=_span_budget,
            help="Hit spans a probe, or all; misses and forward passes are always spans. "
            "By default 2000.",
            metavar="N|all",
            rich_help_panel=_SPANS,
        ),
    ] = None
    metrics_port: Annotated[
        int | None,
        typer.Option(
            help="Serve metrics for Prometheus on this port while it runs; 0 takes a free one.",
            min=0,
            max=65535,
            metavar="N",
            rich_help_panel=_METRICS,
        ),
    ] = None
    metrics_address: Annotated[
        str | None,
        typer.Option(
            help="Where to serve them. By default 127.0.0.1.",
            metavar="ADDRESS",
            rich_help_panel=_METRICS,
        ),
    ] = None
    metrics_linger: Annotated[
        float | None,
        typer.Option(
            help="After the end, wait at most so many seconds for one more scrape.",
            min=0,
            max=86400,
            metavar="S",
            rich_help_panel=_METRICS,
        ),
    ] = None
    pushgateway: Annotated[
        str | None,
        typer.Option(
            help="Push the run's outcome to this Pushgateway, for runs that end before a scrape.",
            metavar="URL",
            rich_help_panel=_METRICS,
        ),
    ] = None
    metrics_file: Annotated[
        str | None,
        typer.Option(
            help="Write the run's outcome to this file, for node_exporter's textfile collector.",
            metavar="FILE.prom",
            rich_help_panel=_METRICS,
        ),
    ] = None

    def over(self, spec: SuiteSpec) -> SuiteSpec:
        """Return the suite with what the command line says in place of its own.

        Raises:
            UserError: An option's value is none that a suite could have.
        """
        said = {name: getattr(self, name) for name in TelemetrySpec.model_fields}
        said = {name: value for name, value in said.items() if value is not None}
        try:
            telemetry = TelemetrySpec(**spec.telemetry.model_dump() | said)
        except ValidationError as error:
            raise UserError(_refused(error)) from error
        if self.metrics_linger and telemetry.metrics_port is None:
            raise UserError("--metrics-linger waits for a scrape; say where: add --metrics-port N")
        cache = spec.cache.model_dump() | ({"enabled": False} if self.no_cache else {})
        return spec.model_copy(update={"telemetry": telemetry, "cache": CacheSpec(**cache)})

    def outputs(self, spec: SuiteSpec) -> dict[str, Path | None]:
        """Return the files that a run writes, by what they hold."""
        metrics = spec.telemetry.metrics_file
        return {
            "trace": self.trace,
            "result": self.json,
            "metrics": None if metrics is None else Path(metrics),
        }


def _refused(error: ValidationError) -> str:
    """Tell the first mistake; a variable of the shell that is not set gives an empty value."""
    first = error.errors()[0]
    option = str(first["loc"][0]).replace("_", "-")
    way_out = "; leave the option out, or give it a value" if first["input"] == "" else ""
    return f"--{option} {first['input']!r}: {first['msg']}{way_out}"


def takes_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `RunOptions`, and hand them to it as its `options`."""
    fields = signature(RunOptions, eval_str=True).parameters
    own = signature(command, eval_str=True)

    @wraps(command)
    def wrapped(**given: Any) -> None:
        options = RunOptions(**{name: given.pop(name) for name in fields})
        command(**given, options=options)

    parameters = [one for name, one in own.parameters.items() if name != "options"]
    parameters += [one.replace(kind=Parameter.KEYWORD_ONLY) for one in fields.values()]
    wrapped.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = get_type_hints(command, include_extras=True) | {
        name: one.annotation for name, one in fields.items()
    }
    return wrapped
