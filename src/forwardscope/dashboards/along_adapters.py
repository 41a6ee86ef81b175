"""Panels of a sweep in the order of its adapters: lines of probes, and a matrix of verdicts."""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards.links import links_of_labels
from forwardscope.dashboards.panels import (
    NEUTRAL,
    Panel,
    Thresholds,
    by_threshold,
    data_links,
    instant_query,
    with_settings,
)
from forwardscope.dashboards.queries import series
from forwardscope.dashboards.run_queries import known
from forwardscope.dashboards.sdk import (
    PromQueryFormat,
    common,
    models,
    options,
    table,
    trend,
)
from forwardscope.dashboards.sweep_queries import ADAPTER, of_sweep, per_line
from forwardscope.telemetry import names
from forwardscope.telemetry.names import Metric

__all__ = ["measured", "scores", "verdicts"]

#: Verdicts in the order of their numbers in the matrix, with their colours.
_VERDICTS: Final = {"pass": "green", "skip": "text", "fail": "red", "error": "orange"}
#: Name that Grafana gives the first column of a matrix.
_POSITION, _ADAPTER = "position\\line", "row\\line"


def scores() -> Panel:
    """Scores of probes along the adapters."""
    return _along(
        "Scores along the adapters",
        "Score of each probe, from 0 to 1, by the position of the adapter in the newest sweep of "
        "each suite. The table Adapters has their names.",
        names.SWEEP_PROBE_SCORE,
    )


def measured() -> Panel:
    """What probes measured along the adapters."""
    return _along(
        "Values along the adapters",
        "What each probe measured, in its own unit, such as nats, by the position of the adapter. "
        "It differs where scores are all but 1.",
        names.SWEEP_PROBE_RAW,
    )


def verdicts() -> Panel:
    """Verdict of each probe on each adapter."""
    metric, given = names.SWEEP_PROBE_VERDICT, "sum without (verdict)"
    numbered = (
        f"{number} * {given} ({series(metric, _is(verdict))} == 1)"
        for number, verdict in enumerate(_VERDICTS)
    )
    query = per_line(of_sweep(" or ".join(numbered), *ADAPTER, "probe"))
    panel = (
        table.Panel()
        .no_value("–")
        .color_scheme(by_threshold())
        .mappings([_mapping()])
        .override_by_regexp(".*", [_cells()])
        .data_links(data_links(links_of_labels(())))
        .with_target(_table(f'label_join({query}, "row", " ", "position", "adapter")'))
        .with_transformation(_transformation("sortBy", {"sort": [{"field": "row"}]}))
        .with_transformation(_matrix("row"))
    )
    text = "Verdict of each probe (columns) on each adapter (rows) of the newest sweep."
    with_settings(panel, "Verdicts", text, "short", _colours())
    return panel.span(24).height(9)


def _along(title: str, description: str, metric: Metric) -> Panel:
    """Return lines of probes whose horizontal axis is the position of the adapter."""
    query = per_line(of_sweep(known(metric), *ADAPTER, "probe"))
    numbers = [{"targetField": _POSITION, "destinationType": "number"}]
    panel = (
        trend.Panel()
        .x_field(_POSITION)
        .show_points(options.VisibilityMode.ALWAYS)
        .legend(
            common.VizLegendOptions()
            .display_mode(options.LegendDisplayMode.LIST)
            .placement(options.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .override_by_name(_POSITION, [_value("displayName", "Position"), _value("unit", "none")])
        .data_links(data_links(links_of_labels(())))
        .with_target(_table(query))
        .with_transformation(_transformation("sortBy", {"sort": [{"field": "position"}]}))
        .with_transformation(_matrix("position"))
        .with_transformation(_transformation("convertFieldType", {"conversions": numbers}))
    )
    return with_settings(panel, title, description, "none", NEUTRAL).span(12).height(9)


def _is(verdict: str) -> str:
    return f'verdict="{verdict}"'


def _table(query: str) -> object:
    return instant_query(query).format(PromQueryFormat.TABLE)


def _matrix(rows: str) -> models.DataTransformerConfig:
    """Return the transformation to a row for each value of a label and a column for each line."""
    settings = {"rowField": rows, "columnField": "line", "valueField": "Value"}
    return _transformation("groupingToMatrix", {**settings, "emptyValue": "null"})


def _transformation(name: str, settings: dict[str, object]) -> models.DataTransformerConfig:
    return models.DataTransformerConfig(name, options=settings)


def _value(name: str, value: object) -> models.DynamicConfigValue:
    return models.DynamicConfigValue(name, value)


def _cells() -> models.DynamicConfigValue:
    return _value("custom.cellOptions", {"type": "color-background", "mode": "basic"})


def _mapping() -> models.ValueMap:
    return models.ValueMap(
        options={
            str(number): models.ValueMappingResult(text=verdict, color=color, index=number)
            for number, (verdict, color) in enumerate(_VERDICTS.items())
        }
    )


def _colours() -> Thresholds:
    first, *others = _VERDICTS.values()
    return ((None, first), *((float(n), color) for n, color in enumerate(others, start=1)))
