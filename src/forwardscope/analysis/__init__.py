"""Reads what was recorded: traces and results, from files alone."""
