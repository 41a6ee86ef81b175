"""The options of the commands that run a suite."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_type_hints

import typer
from pydantic import ValidationError

from forwardscope.errors import UserError
from forwardscope.suite.selection import chosen_store
from forwardscope.suite.spec import CacheSpec, SuiteSpec, TelemetrySpec

__all__ = ["RunOptions", "takes_run_options", "takes_sweep_options"]

#: Options that name an output file of one run.
_OUTPUTS: Final = ("trace", "json", "markdown", "junit")
_STORE, _SPANS, _METRICS = "Store", "Spans", "Metrics"


def _span_budget(text: str) -> Any:
    if text == "all":
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise typer.BadParameter(f"{text!r} is neither a whole number nor all")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of a run, which override its suite; None leaves the suite's setting."""

    trace: Annotated[
        Path | None,
        typer.Option(help="Append one JSON line per lookup to this file.", metavar="FILE"),
    ] = None
    json: Annotated[
        Path | None, typer.Option(help="Write the result to this file, as JSON.", metavar="FILE")
    ] = None
    markdown: Annotated[
        Path | None,
        typer.Option(
            help="Write verdicts and values to this file, as Markdown for a pull request.",
            metavar="FILE.md",
        ),
    ] = None
    junit: Annotated[
        Path | None,
        typer.Option(
            help="Write the verdicts to this file, as JUnit XML for a CI system.",
            metavar="FILE.xml",
        ),
    ] = None
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            help="Print no progress and no report, only what was not delivered, on stderr.",
        ),
    ] = False
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Turn cache and store off: keep no computed value.")
    ] = False
    store: Annotated[
        str | None,
        typer.Option(
            help="Keep computed values for later runs, of any adapter, in this file: a path, or "
            "default for one in the user's cache folder; or on the Redis or Valkey server of a "
            "redis:// URL. It holds no prompts. By default the value of FORWARDSCOPE_STORE, where "
            "the suite names no store.",
            metavar="PATH|URL|default",
            rich_help_panel=_STORE,
        ),
    ] = None
    no_store: Annotated[
        bool,
        typer.Option("--no-store", help="Use no store.", rich_help_panel=_STORE),
    ] = False
    verify: Annotated[
        float | None,
        typer.Option(
            help="Share of the store's values that are computed again and compared; at least one "
            "of each view, unless it is 0. By default 1/64.",
            min=0.0,
            max=1.0,
            metavar="SHARE",
            rich_help_panel=_STORE,
        ),
    ] = None
    rehash: Annotated[
        bool,
        typer.Option(
            "--rehash",
            help="Digest the weights again, which takes about a second per gigabyte. By default "
            "a digest is remembered while its files have the same inodes, sizes and times.",
            rich_help_panel=_STORE,
        ),
    ] = False
    show_errors: Annotated[
        bool,
        typer.Option(
            "--show-errors",
            help="Write the message of an exception in a probe into result and report. It may "
            "contain prompts; by default they have only its class.",
        ),
    ] = False
    otlp: Annotated[
        str | None,
        typer.Option(
            help="Send spans to this OTLP receiver, for example Jaeger. By default the standard "
            "OTEL_EXPORTER_OTLP_* variables apply.",
            metavar="URL",
            rich_help_panel=_SPANS,
        ),
    ] = None
    otlp_protocol: Annotated[
        Literal["http/protobuf", "grpc"] | None,
        typer.Option(
            help="Protocol of the receiver. By default OTEL_EXPORTER_OTLP_PROTOCOL; if it is not "
            "set, grpc for port 4317 and http/protobuf for others.",
            rich_help_panel=_SPANS,
        ),
    ] = None
    span_budget: Annotated[
        str | None,
        typer.Option(
            parser=_span_budget,
            help="Number of cache hits per probe that get a span, or all. Misses and forward "
            "passes always get one. By default 2000.",
            metavar="N|all",
            rich_help_panel=_SPANS,
        ),
    ] = None
    traces_url: Annotated[
        str | None,
        typer.Option(
            help="Print the address of the run's trace in a viewer. {trace_id} stands for the id, "
            "as in http://127.0.0.1:16686/trace/{trace_id} for Jaeger. By default the value of "
            "FORWARDSCOPE_TRACES_URL.",
            metavar="URL",
            rich_help_panel=_SPANS,
        ),
    ] = None
    otlp_metrics: Annotated[
        str | None,
        typer.Option(
            help="Send metrics to this OTLP receiver, for example an OpenTelemetry Collector, or "
            "http://127.0.0.1:9090/api/v1/otlp for Prometheus 3; over gRPC if the scheme is grpc "
            "or the port 4317. By default the standard OTEL_EXPORTER_OTLP_* variables apply, if "
            "they name a receiver of metrics.",
            metavar="URL",
            rich_help_panel=_METRICS,
        ),
    ] = None
    metrics_port: Annotated[
        int | None,
        typer.Option(
            help="Serve metrics for Prometheus on this port during the run; 0 picks a free port.",
            min=0,
            max=65535,
            metavar="N",
            rich_help_panel=_METRICS,
        ),
    ] = None
    metrics_address: Annotated[
        str | None,
        typer.Option(
            help="Address to serve metrics on. By default 127.0.0.1.",
            metavar="ADDRESS",
            rich_help_panel=_METRICS,
        ),
    ] = None
    metrics_linger: Annotated[
        float | None,
        typer.Option(
            help="After the run, wait up to this many seconds for a last scrape.",
            min=0,
            max=86400,
            metavar="S",
            rich_help_panel=_METRICS,
        ),
    ] = None
    pushgateway: Annotated[
        str | None,
        typer.Option(
            help="Push the run's metrics to this Pushgateway, for runs that end before a scrape.",
            metavar="URL",
            rich_help_panel=_METRICS,
        ),
    ] = None
    metrics_file: Annotated[
        str | None,
        typer.Option(
            help="Write the run's metrics to this file, for node_exporter's textfile collector.",
            metavar="FILE.prom",
            rich_help_panel=_METRICS,
        ),
    ] = None

    def override(self, spec: SuiteSpec) -> SuiteSpec:
        """Return the suite with the settings of the given options.

        Raises:
            UserError: The value of an option is not valid.
        """
        options = {name: getattr(self, name) for name in TelemetrySpec.model_fields}
        given = {name: value for name, value in options.items() if value is not None}
        try:
            telemetry = TelemetrySpec(**spec.telemetry.model_dump() | given)
        except ValidationError as error:
            raise UserError(_message(error)) from error
        if self.metrics_linger and telemetry.metrics_port is None:
            raise UserError("--metrics-linger needs a metrics endpoint; add --metrics-port N")
        settings = {"telemetry": telemetry, "cache": self._cache(spec.cache)}
        return spec.model_copy(
            update=settings | {"show_errors": self.show_errors or spec.show_errors}
        )

    def _cache(self, cache: CacheSpec) -> CacheSpec:
        if self.no_cache and self.store is not None:
            raise UserError("--store and --no-cache contradict each other; give one of them")
        store = chosen_store(cache, self.store, no_store=self.no_store or self.no_cache)
        update: dict[str, Any] = {"store": store}
        if self.no_cache:
            update["enabled"] = False
        if self.rehash:
            update["rehash"] = True
        if self.verify is not None:
            update["verify"] = self.verify
        return cache.model_copy(update=update)

    def output_files(self, spec: SuiteSpec) -> dict[str, Path | None]:
        """Return the files that a run writes, by content; None for a file not written."""
        metrics = spec.telemetry.metrics_file
        return {
            "trace": self.trace,
            "result": self.json,
            "Markdown": self.markdown,
            "JUnit": self.junit,
            "metrics": None if metrics is None else Path(metrics),
        }


def _message(error: ValidationError) -> str:
    """Describe the first invalid option."""
    first = error.errors()[0]
    option = str(first["loc"][0]).replace("_", "-")
    # an unset shell variable gives an empty value
    hint = "; leave the option out, or give it a value" if first["input"] == "" else ""
    return f"--{option} {first['input']!r}: {first['msg']}{hint}"


def takes_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the fields of `RunOptions` to a command as options; pass them in `options`."""
    return _with_options(command, without=())


def takes_sweep_options(command: Callable[..., None]) -> Callable[..., None]:
    """Do as `takes_run_options`, without the options of one run's output files."""
    return _with_options(command, without=_OUTPUTS)


def _with_options(command: Callable[..., None], without: Container[str]) -> Callable[..., None]:
    parameters_of_options = signature(RunOptions, eval_str=True).parameters
    fields = {name: one for name, one in parameters_of_options.items() if name not in without}
    command_signature = signature(command, eval_str=True)

    @wraps(command)
    def wrapped(**given: Any) -> None:
        options = RunOptions(**{name: given.pop(name) for name in fields})
        command(**given, options=options)

    parameters = [
        parameter for name, parameter in command_signature.parameters.items() if name != "options"
    ]
    parameters += [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in fields.values()]
    wrapped.__signature__ = command_signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = get_type_hints(command, include_extras=True) | {
        name: parameter.annotation for name, parameter in fields.items()
    }
    return wrapped
