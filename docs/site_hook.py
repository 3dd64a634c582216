"""What the site needs beside the pages: links that lead out of docs/, and the help of each verb. Run by mkdocs."""

from __future__ import annotations

import argparse
import re
from typing import Any

import fastload
from fastload.cli import entry

_OUTSIDE = re.compile(
    r"\[([^\]]+)\]\((?:\.\./)+(README\.md|CONTRIBUTING\.md|CHANGELOG\.md|examples/[^)]*|benchmarks/[^)]*)\)"
)
_ROLE = re.compile(r":(?:func|meth|class|mod|attr|exc): ?<code>~?([^<]*)</code>")
"""A docstring's way to say that something is a name."""
_INLINE = re.compile(r"<code>([^<]*)</code>")
_FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
_JOINT = re.compile(r"(?<=\w)[/_](?=\w)")
_LONG = 16
"""What has more characters may break at its joints."""
_HELP = re.compile(r"^<!-- help: (\w+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What leads to a file of the repository becomes its name; help takes the place of its mark."""
    markdown = _OUTSIDE.sub(_name_file, markdown)
    return _HELP.sub(lambda match: f"```text\n{show_help(match[1])}```", markdown)


def on_page_content(html: str, page: Any = None, **_: Any) -> str:
    """Names that docstrings mark by a role are shown as other code is; code breaks where it may, and flags nowhere.

    Raises:
        PluginError: the reference lacks a public name.
    """
    if page is not None and page.file.src_uri == "api.md":
        _check_reference(html)
    html = _ROLE.sub(r"<code>\1</code>", html)
    return _INLINE.sub(lambda match: _let_break(match[1]), html)


def find_missing(html: str) -> list[str]:
    """The public names that have no anchor on the page."""
    return [name for name in fastload.__all__ if f'id="fastload.{name}"' not in html]


def _check_reference(html: str) -> None:
    from mkdocs.exceptions import PluginError  # tests read this without it

    missing = find_missing(html)
    if missing:
        raise PluginError(f"docs/api.md has no {', '.join(missing)}")


def _let_break(code: str) -> str:
    """Code of one line, for columns that may be narrow. What is copied of it is the same."""
    if len(code) > _LONG:
        code = _JOINT.sub(r"\g<0><wbr>", code)
    return "<code>" + _FLAG.sub(r'<span class="flag">\g<0></span>', code) + "</code>"


def _name_file(match: re.Match[str]) -> str:
    label, path = match[1], match[2].removesuffix("/README.md")
    return f"`{path}`" if label in path else f"{label} (`{path}`)"


def show_help(verb: str) -> str:
    """As ``fastload VERB --help`` prints it, 78 columns wide: more would not fit beside the navigation."""
    for action in entry.build_parser()._actions:  # noqa: SLF001 - argparse has no other way in
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            parser: argparse.ArgumentParser = action.choices[verb]
            parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=78)
            return parser.format_help()
    raise KeyError(verb)
