"""The command line; thin, it only joins the parts that do the work."""

from forwardscope.cli.app import main

__all__ = ["main"]
