"""Dashboards, alert rules and the stack that shows them, as code.

The panels and rules are written here, with names from `telemetry/names.py`, and
become files by `make dashboards`; the files are in the package, so `export` and
`check` need none of what wrote them.
"""
