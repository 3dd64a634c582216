"""What the site needs beside the pages: links that lead out of docs/, and the help of each verb. Run by mkdocs."""

from __future__ import annotations

import argparse
import re
from typing import Any

from fastload.cli import entry

_OUTSIDE = re.compile(
    r"\[([^\]]+)\]\((?:\.\./)+(README\.md|CONTRIBUTING\.md|CHANGELOG\.md|examples/[^)]*|benchmarks/[^)]*)\)"
)
_HELP = re.compile(r"^<!-- help: (\w+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What leads to a file of the repository becomes its name; help takes the place of its mark."""
    markdown = _OUTSIDE.sub(_name_file, markdown)
    return _HELP.sub(lambda match: f"```text\n{show_help(match[1])}```", markdown)


def _name_file(match: re.Match[str]) -> str:
    label, path = match[1], match[2].removesuffix("/README.md")
    return f"`{path}`" if label in path else f"{label} (`{path}`)"


def show_help(verb: str) -> str:
    """As ``fastload VERB --help`` prints it, 88 columns wide."""
    for action in entry.build_parser()._actions:  # noqa: SLF001 - argparse has no other way in
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            parser: argparse.ArgumentParser = action.choices[verb]
            parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=88)
            return parser.format_help()
    raise KeyError(verb)
