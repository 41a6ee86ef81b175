"""Panels of a sweep in the order of its adapters: lines, and a matrix of verdicts."""

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
    Dataquery,
    PromQueryFormat,
    common,
    models,
    options,
    table,
    trend,
)
from forwardscope.dashboards.sweep_queries import ADAPTER, of_sweep, per_line
from forwardscope.telemetry import sweep_names
from forwardscope.telemetry.names import Metric

__all__ = ["measured", "passes", "scores", "verdicts"]

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
        _of_probes(sweep_names.SWEEP_PROBE_SCORE),
        "none",
    )


def measured() -> Panel:
    """What probes measured along the adapters."""
    return _along(
        "Values along the adapters",
        "What each probe measured, in its own unit, such as nats, by the position of the adapter. "
        "It differs where scores are all but 1.",
        _of_probes(sweep_names.SWEEP_PROBE_RAW),
        "none",
    )


def passes() -> Panel:
    """Forward passes of each adapter, and those that it needed."""
    costs = {
        "paid": sweep_names.SWEEP_ADAPTER_PASSES,
        "needed": sweep_names.SWEEP_ADAPTER_PASSES_NEEDED,
    }
    named = (
        f'label_replace({known(metric)}, "cost", "{cost}", "", "")'
        for cost, metric in costs.items()
    )
    return _along(
        "Forward passes along the adapters",
        "paid: prompts that the model computed when an adapter was measured. needed: those that "
        "it would have computed without a store. Resumed adapters have the numbers of their day.",
        per_line(of_sweep(" or ".join(named), *ADAPTER, "cost"), "cost"),
        "locale",
    )


def verdicts() -> Panel:
    """Verdict of each probe on each adapter."""
    metric, given = sweep_names.SWEEP_PROBE_VERDICT, "sum without (verdict)"
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
        .override_by_regexp("/: /", [_cells()])
        .override_by_name(_ADAPTER, [_value("displayName", "Adapter"), _links()])
        .with_target(_table(f'label_join({query}, "row", " ", "position", "adapter")'))
    )
    for transformation in _matrix("row"):
        panel.with_transformation(transformation)
    text = "Verdict of each probe (columns) on each adapter (rows) of the newest sweep."
    with_settings(panel, "Verdicts", text, "short", _colours())
    return panel.span(24).height(9)


def _of_probes(metric: Metric) -> str:
    return per_line(of_sweep(known(metric), *ADAPTER, "probe"))


def _along(title: str, description: str, query: str, unit: str) -> Panel:
    """Return lines whose horizontal axis is the position of the adapter."""
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
    )
    for transformation in _matrix("position"):
        panel.with_transformation(transformation)
    panel.with_transformation(_transformation("convertFieldType", {"conversions": numbers}))
    return with_settings(panel, title, description, unit, NEUTRAL).span(12).height(9)


def _is(verdict: str) -> str:
    return f'verdict="{verdict}"'


def _table(query: str) -> Dataquery:
    return instant_query(query).format(PromQueryFormat.TABLE)


def _matrix(rows: str) -> list[models.DataTransformerConfig]:
    """Return transformations to a row for each value of a label and a column for each line.

    Both are sorted: the second sort keeps the order of the first among equal rows.
    """
    settings = {"rowField": rows, "columnField": "line", "valueField": "Value"}
    return [
        _transformation("sortBy", {"sort": [{"field": "line"}]}),
        _transformation("sortBy", {"sort": [{"field": rows}]}),
        _transformation("groupingToMatrix", {**settings, "emptyValue": "null"}),
    ]


def _transformation(name: str, settings: dict[str, object]) -> models.DataTransformerConfig:
    return models.DataTransformerConfig(name, options=settings)


def _value(name: str, value: object) -> models.DynamicConfigValue:
    return models.DynamicConfigValue(name, value)


def _cells() -> models.DynamicConfigValue:
    return _value("custom.cellOptions", {"type": "color-background", "mode": "basic"})


def _links() -> models.DynamicConfigValue:
    links = [{"title": title, "url": url} for title, url in links_of_labels(())]
    return _value("links", links)


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
