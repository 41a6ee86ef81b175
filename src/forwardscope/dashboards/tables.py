"""Build tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from forwardscope.dashboards.links import Link
from forwardscope.dashboards.panels import (
    NEUTRAL,
    Panel,
    Thresholds,
    by_threshold,
    instant_query,
    threshold_config,
    with_settings,
)
from forwardscope.dashboards.sdk import PromQueryFormat, models, table

__all__ = ["TableColumn", "table_panel"]


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
        links: Links of each cell.
    """

    title: str
    expr: str = ""
    label: str = ""
    unit: str = "short"
    thresholds: Thresholds = NEUTRAL
    width: int = 0
    links: Sequence[Link] = ()

    def overrides(self) -> list[models.DynamicConfigValue]:
        """Return the settings of this column's cells."""
        settings = [models.DynamicConfigValue("unit", self.unit)]
        if len(self.thresholds) > 1:
            settings.append(
                models.DynamicConfigValue("thresholds", threshold_config(self.thresholds).build())
            )
            settings.append(models.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
        if self.width:
            settings.append(models.DynamicConfigValue("custom.width", self.width))
        if self.links:
            links = [{"title": title, "url": url} for title, url in self.links]
            settings.append(models.DynamicConfigValue("links", links))
        return settings


def table_panel(
    title: str,
    description: str,
    columns: Sequence[TableColumn],
    *,
    height: int = 10,
    width: int = 24,
    empty: str = "–",
    sorted_by: str = "",
) -> Panel:
    """Return a table that joins the queries of its columns by their labels.

    Each set of labels is a row.

    Args:
        title: Title of the panel.
        description: Description of the panel.
        columns: The columns from left to right.
        height: Height in units of the grid.
        width: Width likewise.
        empty: Text of cells without a value, and of a table without rows.
        sorted_by: Title of the column whose smallest value comes first; otherwise the largest
            value of the first column does.
    """
    panel = table.Panel().no_value(empty).color_scheme(by_threshold()).min_width(80)
    single = sum(bool(column.expr) for column in columns) == 1
    letters = iter(ascii_uppercase)
    renamed: dict[str, str] = {}  # titles by Grafana's names of columns, in order
    for column in columns:
        if column.expr:
            letter = next(letters)
            panel.with_target(instant_query(column.expr, letter).format(PromQueryFormat.TABLE))
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
        ("sortBy", {"sort": [{"field": sorted_by or columns[0].title, "desc": not sorted_by}]}),
    ):
        panel.with_transformation(models.DataTransformerConfig(transformation, options=settings))
    return with_settings(panel, title, description, "short", NEUTRAL).span(width).height(height)
