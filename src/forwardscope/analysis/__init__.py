"""Analysis of trace files and results."""
