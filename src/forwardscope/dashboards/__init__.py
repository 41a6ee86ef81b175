"""Dashboards as code, of names in `telemetry/names.py`; `make dashboards` writes their files."""
