"""The command line: parses options and calls the parts that do the work."""

from forwardscope.cli.app import main

__all__ = ["main"]
