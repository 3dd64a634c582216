"""Samples as text (https://prometheus.io/docs/instrumenting/exposition_formats/). Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one gauge."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def render(samples: Iterable[Sample], help_of: Mapping[str, str]) -> str:
    """All samples of a gauge together, each gauge with its help, in the order of ``help_of``."""
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        by_name.setdefault(sample.name, []).append(sample)
    lines: list[str] = []
    for name, text in help_of.items():
        if name in by_name:
            lines += [f"# HELP {name} {_escape_help(text)}", f"# TYPE {name} gauge"]
            lines += [f"{name}{_show_labels(sample.labels)} {sample.value!r}" for sample in by_name[name]]
    return "\n".join(lines) + "\n" if lines else ""


def _show_labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    shown = ",".join(f'{name}="{_escape_label(value)}"' for name, value in labels.items())
    return "{" + shown + "}"


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escape_label(text: str) -> str:
    return _escape_help(text).replace('"', '\\"')
