"""Panels with the alerts of Prometheus' rules, narrowed to the chosen suites and models."""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards import (
    cost_alerts,
    delivery_alerts,
    run_alerts,
    server_alerts,
    service_rules,
    store_alerts,
)
from forwardscope.dashboards.links import to_runs
from forwardscope.dashboards.panels import ALARM, SOURCE, Panel, stat_panel
from forwardscope.dashboards.rules import RUNBOOK
from forwardscope.dashboards.sdk import builders
from forwardscope.dashboards.tables import TableColumn, table_panel

__all__ = ["alert_list", "firing", "number_firing"]

_OF_SUITES: Final = (run_alerts, cost_alerts, server_alerts, store_alerts, delivery_alerts)
_RULES: Final = (*_OF_SUITES, service_rules)
_NAMES: Final = "|".join(sorted({alert.name for rules in _RULES for alert in rules.alerts()}))
_CHOSEN: Final = f'alertname=~"{_NAMES}", suite=~"$suite", model=~"$model"'
_FIRING: Final = f'ALERTS{{alertstate="firing", {_CHOSEN}}}'
_LABELS: Final = "alertname, severity, suite, model, job, backend"
#: Newest first, and at most this many.
_BY_TIME, _MOST = 5, 50


def number_firing() -> Panel:
    """Number of firing alerts."""
    return stat_panel(
        "Firing alerts",
        "Alerts on the chosen suites and models that fire at the end of the time range; without a "
        "choice also those on services. It is 0 as well if Prometheus has not loaded the rules.",
        f"count({_FIRING}) or vector(0)",
        "locale",
        thresholds=ALARM,
        width=3,
    )


def firing() -> Panel:
    """One row for each firing alert."""
    since = f"ALERTS_FOR_STATE{{{_CHOSEN}}} * 1000 and ignoring (alertstate) {_FIRING}"
    return table_panel(
        "Firing alerts",
        "Alerts that fire at the end of the time range, and since when their condition holds. "
        "Alerts on services have a job and a backend in place of a suite and a model, so they are "
        "listed while no suite and no model is chosen.",
        (
            TableColumn("Since", f"max by ({_LABELS}) ({since})", unit="dateTimeAsIso", width=165),
            TableColumn("Alert", label="alertname", links=[("Runbook", RUNBOOK)]),
            TableColumn("Severity", label="severity", width=80),
            TableColumn(
                "Suite",
                label="suite",
                links=[to_runs("Runs of this suite", suite="${__value.raw}")],
            ),
            TableColumn("Model", label="model"),
            TableColumn("Job", label="job", width=100),
            TableColumn("Backend", label="backend", width=80),
        ),
        height=6,
        width=14,
        empty="no alert fires",
    )


def alert_list() -> Panel:
    """Grafana's own list of alerts, with the pending ones and a link to each rule."""
    states = {"firing": True, "pending": True, "error": True, "noData": False, "normal": False}
    return (
        builders.Panel()
        .type("alertlist")
        .title("Firing and pending alerts")
        .description(
            "Grafana's list of the alerts on the chosen suites and models, with a link to each "
            "rule. It needs a data source whose setting `Manage alerts via Alerting UI` is on. "
            "Alerts on services have no suite and are not in it."
        )
        .datasource(SOURCE)
        .options(
            {
                "alertInstanceLabelFilter": '{suite=~"${suite:regex}", model=~"${model:regex}"}',
                "alertName": "",
                "dashboardAlerts": False,
                "groupBy": [],
                "groupMode": "default",
                "maxItems": _MOST,
                "sortOrder": _BY_TIME,
                "stateFilter": states,
                "viewMode": "list",
            }
        )
        .span(10)
        .height(6)
    )
