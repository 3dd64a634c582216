"""The command line: one file per verb, and the only place that prints or exits."""

from fastload.cli.entry import main

__all__ = ["main"]
