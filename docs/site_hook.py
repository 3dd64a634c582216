"""What the site needs beside the pages: links that lead out of docs/, and the help of each verb. Run by mkdocs."""

from __future__ import annotations

import argparse
import re
from typing import Any

from fastload.cli import entry

_OUTSIDE = re.compile(
    r"\[([^\]]+)\]\((?:\.\./)+(README\.md|CONTRIBUTING\.md|CHANGELOG\.md|examples/[^)]*|benchmarks/[^)]*)\)"
)
_ROLE = re.compile(r":(?:func|meth|class|mod|attr|exc): ?<code>~?([^<]*)</code>")
"""A docstring's way to say that something is a name."""
_INLINE = re.compile(r"<code>[^<]*</code>")
_FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
_HELP = re.compile(r"^<!-- help: (\w+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What leads to a file of the repository becomes its name; help takes the place of its mark."""
    markdown = _OUTSIDE.sub(_name_file, markdown)
    return _HELP.sub(lambda match: f"```text\n{show_help(match[1])}```", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Names that docstrings mark by a role are shown as other code is; a flag stays in one line."""
    html = _ROLE.sub(r"<code>\1</code>", html)
    return _INLINE.sub(lambda code: _FLAG.sub(r'<span class="flag">\g<0></span>', code[0]), html)


def _name_file(match: re.Match[str]) -> str:
    label, path = match[1], match[2].removesuffix("/README.md")
    shown = f"<code>{path.replace('/', '/<wbr>')}</code>"  # in a narrow column it may break there, and nowhere else
    return shown if label in path else f"{label} ({shown})"


def show_help(verb: str) -> str:
    """As ``fastload VERB --help`` prints it, 78 columns wide: more would not fit beside the navigation."""
    for action in entry.build_parser()._actions:  # noqa: SLF001 - argparse has no other way in
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            parser: argparse.ArgumentParser = action.choices[verb]
            parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=78)
            return parser.format_help()
    raise KeyError(verb)
