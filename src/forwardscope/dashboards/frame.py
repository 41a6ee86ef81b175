"""The parts that all dashboards share: variables, links, time range and crosshair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from forwardscope.dashboards.defaults import SOURCE, Panel
from forwardscope.dashboards.sdk import Dataquery, builders, models
from forwardscope.telemetry import names
from forwardscope.telemetry.names import Metric

__all__ = ["TAG", "Rows", "dashboard", "mark"]

#: The tag of all dashboards; the links between them select by it.
TAG: Final = "forwardscope"
#: Panels by the title of their row.
Rows = Mapping[str, Iterable[Panel]]


def _either(*metrics: Metric) -> str:
    return f'__name__=~"{"|".join(metric.name for metric in metrics)}"'


_OF_BOTH: Final = _either(names.BUILD_INFO, names.RUN_INFO)
_WITH_PROBE: Final = _either(names.LOOKUPS, names.PROBE_VERDICT)
_HERE = 'job=~"$job", instance=~"$instance"'
#: Selectors of the series that supply the values of each variable.
_SELECTORS: Final = {
    "job": f"{{{_OF_BOTH}}}",
    "instance": f'{{{_OF_BOTH}, job=~"$job"}}',
    "suite": f"{names.RUN_INFO.name}{{{_HERE}}}",
    "backend": f"{names.LOOKUPS.name}{{{_HERE}}}",
    "probe": f"{{{_WITH_PROBE}, {_HERE}}}",
}
_ANYTHING = ".*"  # matches series without the label too


def dashboard(
    uid: str,
    title: str,
    question: str,
    content: Rows,
    *,
    since: str = "now-6h",
    marks: Iterable[builders.AnnotationQuery] = (),
    more_variables: Iterable[builders.DatasourceVariable] = (),
) -> models.Dashboard:
    """Return a dashboard, with its panels numbered from 1 in reading order.

    Args:
        uid: Id of the dashboard, which links use.
        title: Title of the dashboard.
        question: Description of the dashboard; the first row answers the question.
        content: Rows of the dashboard.
        since: Start of the time range.
        marks: Annotations.
        more_variables: Variables in addition to those of all dashboards.
    """
    page = (
        builders.Dashboard(title)
        .uid(uid)
        .description(question)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time(since, "now")
        .refresh("30s")
        .link(_to_the_others())
    )
    for variable in (_source(), *more_variables, *map(_variable, _SELECTORS)):
        page.with_variable(variable)
    for annotation in marks:
        page.annotation(annotation)
    for head, panels in content.items():
        page.with_row(builders.Row(head))
        for panel in panels:
            page.with_panel(panel)
    made = page.build()
    for number, placed in enumerate(made.panels or (), start=1):
        placed.id_val = number
    return made


def mark(name: str, expr: str, text: str, color: str) -> builders.AnnotationQuery:
    """Return an annotation at the times that are a query's values, in ms since the epoch."""
    return (
        builders.AnnotationQuery()
        .name(name)
        .datasource(SOURCE)
        .enable(True)
        .expr(expr)
        .use_value_for_time(True)
        .title_format(name)
        .text_format(text)
        .tag_keys("suite,model")
        .icon_color(color)
        .target(Dataquery().datasource(SOURCE).ref_id("Anno").expr(expr).range())
    )


def _to_the_others() -> builders.DashboardLink:
    return (
        builders.DashboardLink("forwardscope")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .tooltip("The other dashboards, with the same time range and choices")
        .keep_time(True)
        .include_vars(True)
    )


def _source() -> builders.DatasourceVariable:
    return builders.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _variable(label: str) -> builders.QueryVariable:
    everything = models.VariableOption(text="All", value="$__all", selected=True)
    query = f"label_values({_SELECTORS[label]}, {label})"
    return (
        builders.QueryVariable(label)
        .label(label.capitalize())
        .datasource(SOURCE)
        .query({"query": query, "refId": label})
        .definition(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(_ANYTHING)
        .current(everything)
    )
