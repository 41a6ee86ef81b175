"""Build panels with the settings that all panels of a type share.

The grid of a dashboard is 24 units wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Final, Protocol, Self, TypeVar

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
    table,
    timeseries,
)

__all__ = [
    "ALARM",
    "HIT_RATE",
    "NEUTRAL",
    "SOURCE",
    "Panel",
    "TableColumn",
    "Thresholds",
    "bar_panel",
    "heatmap_panel",
    "line_panel",
    "stat_panel",
    "table_panel",
]

Panel = Builder[models.Panel]
#: Pairs of a lower bound and the colour from there on; None is no lower bound.
Thresholds = tuple[tuple[float | None, str], ...]

NEUTRAL: Final[Thresholds] = ((None, "blue"),)
ALARM: Final[Thresholds] = ((None, "green"), (1, "red"))
HIT_RATE: Final[Thresholds] = ((None, "red"), (0.1, "yellow"), (0.25, "green"))
#: The data source that is selected in the dashboard.
SOURCE: Final = options.DataSourceRef(type_val="prometheus", uid="${datasource}")

_LAST: Final = "lastNotNull"


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
    """Return a panel with one large number: the query's value at the end of the time range."""
    panel = (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs([_LAST]))
        .color_mode(options.BigValueColorMode.VALUE)
        .graph_mode(options.BigValueGraphMode.NONE)
        .color_scheme(_by_threshold())
        .no_value("–")
    )
    return (
        _with_settings(panel, title, description, unit, thresholds)
        .span(width)
        .height(4)
        .with_target(_instant(expr))
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
        .color_scheme(_by_threshold())
        .sizing(options.BarGaugeSizing.MANUAL)
        .min_viz_height(16)
        .max_viz_height(48)
        .min(0)
        .no_value("–")
    )
    if unit == "percentunit":
        panel.max(1)
    target = _instant(f"sort_desc({expr})").legend_format(legend)
    return (
        _with_settings(panel, title, description, unit, thresholds)
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
    _with_settings(panel, title, description, unit, thresholds).span(width).height(8)
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
    )
    target = _query(expr).range().legend_format("{{le}}").exemplar(True)
    target.format(PromQueryFormat.HEATMAP)
    return (
        _with_settings(panel, title, description, unit, NEUTRAL)
        .span(12)
        .height(8)
        .with_target(target)
    )


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One column of a table.

    Attributes:
        title: Heading of the column.
        expr: Query of the values; empty if the column contains a label.
        label: Label whose values the column contains, if any.
        unit: Unit of the values.
        thresholds: Colours of the text; with a single one the text has no colour.
        width: Width in pixels; 0 is a share of the remaining width.
        link: Title and URL of a link on each cell.
    """

    title: str
    expr: str = ""
    label: str = ""
    unit: str = "short"
    thresholds: Thresholds = NEUTRAL
    width: int = 0
    link: tuple[str, str] | None = None

    def overrides(self) -> list[models.DynamicConfigValue]:
        """Return the settings of this column's cells."""
        settings = [models.DynamicConfigValue("unit", self.unit)]
        if len(self.thresholds) > 1:
            settings.append(
                models.DynamicConfigValue("thresholds", _threshold_config(self.thresholds).build())
            )
            settings.append(models.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
        if self.width:
            settings.append(models.DynamicConfigValue("custom.width", self.width))
        if self.link is not None:
            title, url = self.link
            settings.append(models.DynamicConfigValue("links", [{"title": title, "url": url}]))
        return settings


def table_panel(
    title: str, description: str, columns: Sequence[TableColumn], *, height: int = 10
) -> Panel:
    """Return a table that joins the queries of its columns by their labels.

    Each set of labels is a row. The row with the largest value in the first column comes first.
    """
    panel = table.Panel().no_value("–").color_scheme(_by_threshold()).min_width(80)
    single = sum(bool(column.expr) for column in columns) == 1
    letters = iter(ascii_uppercase)
    renamed: dict[str, str] = {}  # titles by Grafana's names of columns, in order
    for column in columns:
        if column.expr:
            letter = next(letters)
            panel.with_target(_instant(column.expr, letter).format(PromQueryFormat.TABLE))
        name = column.label or ("Value" if single else f"Value #{letter}")
        renamed[name] = column.title
        panel.override_by_name(column.title, column.overrides())
    order = {name: index for index, name in enumerate(renamed)}
    for transformation, settings in (
        ("merge", {}),
        (
            "organize",
            {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": renamed},
        ),
        ("sortBy", {"sort": [{"field": columns[0].title, "desc": True}]}),
    ):
        panel.with_transformation(models.DataTransformerConfig(transformation, options=settings))
    return _with_settings(panel, title, description, "short", NEUTRAL).span(24).height(height)


def _with_settings(
    panel: PanelT, title: str, description: str, unit: str, thresholds: Thresholds
) -> PanelT:
    return (
        panel.title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .thresholds(_threshold_config(thresholds))
    )


def _threshold_config(thresholds: Thresholds) -> builders.ThresholdsConfig:
    steps = [models.Threshold(value=value, color=color) for value, color in thresholds]
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _by_threshold() -> builders.FieldColor:
    return builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)


def _query(expr: str, letter: str = "A") -> Dataquery:
    return Dataquery().datasource(SOURCE).ref_id(letter).expr(expr)


def _instant(expr: str, letter: str = "A") -> Dataquery:
    """Return a query that is evaluated once, at the end of the time range."""
    return _query(expr, letter).instant()
