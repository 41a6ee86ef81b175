"""Names of grafana-foundation-sdk.

The dashboards use the first schema of Grafana, because older releases do not support the
second one. The SDK has a warning against the first one.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Prefer using dashboardv2", DeprecationWarning)
    from grafana_foundation_sdk.builders import (
        bargauge,
        common,
        heatmap,
        stat,
        table,
        timeseries,
        trend,
    )
    from grafana_foundation_sdk.builders import dashboard as builders
    from grafana_foundation_sdk.builders.prometheus import Dataquery
    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import common as options
    from grafana_foundation_sdk.models import dashboard as models
    from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
    from grafana_foundation_sdk.models.prometheus import PromQueryFormat

__all__ = [
    "Builder",
    "Dataquery",
    "HeatmapColorMode",
    "JSONEncoder",
    "PromQueryFormat",
    "bargauge",
    "builders",
    "common",
    "heatmap",
    "models",
    "options",
    "stat",
    "table",
    "timeseries",
    "trend",
]
