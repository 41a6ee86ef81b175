"""Build panels with the settings that all panels of a type share.

The grid of a dashboard is 24 units wide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from string import ascii_uppercase
from typing import Final, Protocol, Self, TypeVar

from forwardscope.dashboards.links import Link, links_of_labels
from forwardscope.dashboards.sdk import (
    Builder,
    Dataquery,
    HeatmapColorMode,
    PromQueryFormat,
    bargauge,
    builders,
    common,
    heatmap,
    models,
    options,
    stat,
    timeseries,
)

__all__ = [
    "ALARM",
    "NEUTRAL",
    "REACHED",
    "SOURCE",
    "Panel",
    "Thresholds",
    "bar_panel",
    "by_threshold",
    "data_links",
    "heatmap_panel",
    "instant_query",
    "line_panel",
    "stat_panel",
    "threshold_config",
    "with_settings",
]

Panel = Builder[models.Panel]
#: Pairs of a lower bound and the colour from there on; None is no lower bound.
Thresholds = tuple[tuple[float | None, str], ...]

NEUTRAL: Final[Thresholds] = ((None, "blue"),)
ALARM: Final[Thresholds] = ((None, "green"), (1, "red"))
#: Of a hit rate as a share of the attainable one.
REACHED: Final[Thresholds] = ((None, "red"), (0.8, "yellow"), (0.95, "green"))
#: The data source that is selected in the dashboard.
SOURCE: Final = options.DataSourceRef(type_val="prometheus", uid="${datasource}")

_LAST: Final = "lastNotNull"
_IN_LEGEND: Final = re.compile(r"\{\{(\w+)\}\}")


class _PanelBuilder(Protocol):
    """Methods that all panel builders of the SDK share."""

    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def datasource(self, datasource: options.DataSourceRef) -> Self: ...
    def span(self, w: int) -> Self: ...
    def height(self, h: int) -> Self: ...
    def unit(self, unit: str) -> Self: ...
    def thresholds(self, thresholds: Builder[models.ThresholdsConfig]) -> Self: ...
    def with_target(self, target: Dataquery) -> Self: ...


PanelT = TypeVar("PanelT", bound=_PanelBuilder)


def stat_panel(
    title: str,
    description: str,
    expr: str,
    unit: str,
    *,
    thresholds: Thresholds = NEUTRAL,
    width: int = 4,
) -> Panel:
    """Return a panel with one large number: the query's value at the end of the time range.

    A number of the unit `locale` has no decimals.
    """
    panel = (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs([_LAST]))
        .color_mode(options.BigValueColorMode.VALUE)
        .graph_mode(options.BigValueGraphMode.NONE)
        .color_scheme(by_threshold())
        .no_value("–")
        .data_links(data_links(links_of_labels(())))
    )
    if unit == "locale":
        panel.decimals(0)
    return (
        with_settings(panel, title, description, unit, thresholds)
        .span(width)
        .height(4)
        .with_target(instant_query(expr))
    )


def bar_panel(
    title: str,
    description: str,
    expr: str,
    legend: str,
    unit: str,
    *,
    thresholds: Thresholds = NEUTRAL,
    width: int = 8,
) -> Panel:
    """Return a panel with one bar per series, by its value at the end of the time range.

    The largest bar comes first.
    """
    panel = (
        bargauge.Panel()
        .reduce_options(common.ReduceDataOptions().calcs([_LAST]))
        .orientation(options.VizOrientation.HORIZONTAL)
        .display_mode(options.BarGaugeDisplayMode.BASIC)
        .value_mode(options.BarGaugeValueMode.TEXT)
        .color_scheme(by_threshold())
        .sizing(options.BarGaugeSizing.MANUAL)
        .min_viz_height(16)
        .max_viz_height(48)
        .min(0)
        .no_value("–")
        # without a name of its own, a single bar has none
        .display_name(_IN_LEGEND.sub(r"${__field.labels.\1}", legend))
        .data_links(data_links(links_of_labels(_IN_LEGEND.findall(legend))))
    )
    if unit == "percentunit":
        panel.max(1)
    if unit == "locale":
        panel.decimals(0)
    target = instant_query(f"sort_desc({expr})").legend_format(legend)
    return (
        with_settings(panel, title, description, unit, thresholds)
        .span(width)
        .height(8)
        .with_target(target)
    )


def line_panel(
    title: str,
    description: str,
    queries: Mapping[str, str],
    unit: str,
    *,
    thresholds: Thresholds = NEUTRAL,
    width: int = 12,
    stacked: bool = False,
    stepped: bool = False,
    exemplars: bool = False,
) -> Panel:
    """Return a panel with one line per series over time.

    Args:
        title: Title of the panel.
        description: Description of the panel.
        queries: Queries by legend, which may contain labels as `{{label}}`.
        unit: Unit of the values.
        thresholds: Thresholds; all but the first are dashed lines.
        width: Width in units of the grid.
        stacked: Whether the areas are stacked.
        stepped: Whether a line is level from one value to the next.
        exemplars: Whether to show the exemplars of a histogram.
    """
    panel = (
        timeseries.Panel()
        .line_width(2 if stepped else 1)
        .fill_opacity(25 if stacked else 8)
        .show_points(options.VisibilityMode.NEVER)
        .tooltip(
            common.VizTooltipOptions()
            .mode(options.TooltipDisplayMode.MULTI)
            .sort(options.SortOrder.DESCENDING)
        )
        .legend(
            common.VizLegendOptions()
            .display_mode(options.LegendDisplayMode.LIST)
            .placement(options.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .min(0)
        .data_links(data_links(links_of_labels(_IN_LEGEND.findall(" ".join(queries)))))
    )
    if unit == "percentunit":
        panel.max(1)
    if stepped:
        panel.line_interpolation(options.LineInterpolation.STEP_AFTER).span_nulls(True)
    if stacked:
        panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL).group("A"))
    if len(thresholds) > 1:
        style = common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.DASHED)
        panel.thresholds_style(style)
    with_settings(panel, title, description, unit, thresholds).span(width).height(8)
    for letter, (legend, expr) in zip(ascii_uppercase, queries.items(), strict=False):
        panel.with_target(_query(expr, letter).range().legend_format(legend).exemplar(exemplars))
    return panel


def heatmap_panel(title: str, description: str, expr: str, unit: str) -> Panel:
    """Return a heatmap of a histogram's buckets (`le`), with its exemplars."""
    panel = (
        heatmap.Panel()
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues"))
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .cell_gap(1)
        .show_legend()
        .data_links(data_links(links_of_labels(())))
    )
    target = _query(expr).range().legend_format("{{le}}").exemplar(True)
    target.format(PromQueryFormat.HEATMAP)
    return (
        with_settings(panel, title, description, unit, NEUTRAL)
        .span(12)
        .height(8)
        .with_target(target)
    )


def with_settings(
    panel: PanelT, title: str, description: str, unit: str, thresholds: Thresholds
) -> PanelT:
    """Add the settings of all panels that have a query."""
    return (
        panel.title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .thresholds(threshold_config(thresholds))
    )


def data_links(
    links: Iterable[Link], *, new_tab: bool = False
) -> list[Builder[models.DashboardLink]]:
    """Return links of values in the form of the SDK."""
    return [builders.DashboardLink(title).url(url).target_blank(new_tab) for title, url in links]


def threshold_config(thresholds: Thresholds) -> builders.ThresholdsConfig:
    """Return thresholds in the form of the SDK."""
    steps = [models.Threshold(value=value, color=color) for value, color in thresholds]
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def by_threshold() -> builders.FieldColor:
    """Return the setting that colours values by the thresholds."""
    return builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)


def _query(expr: str, letter: str = "A") -> Dataquery:
    return Dataquery().datasource(SOURCE).ref_id(letter).expr(expr)


def instant_query(expr: str, letter: str = "A") -> Dataquery:
    """Return a query that is evaluated once, at the end of the time range."""
    return _query(expr, letter).instant()
