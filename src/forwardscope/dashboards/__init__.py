"""Dashboards as code, with names from `telemetry/names.py`; `make dashboards` writes them."""
