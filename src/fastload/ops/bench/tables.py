"""From samples to tables: one row per loader, medians, and how far the best peer is away."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import mean, median, mode
from typing import TYPE_CHECKING, Any

from fastload.ops.bench.contestants import BOUNDS, PEERS
from fastload.ops.bench.page_cache import UNTOLD

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload.ops.bench.measure import Sample

_HEAD = ("loader", "median s", "min-max s", "GB/s", "x {}", "CPU s", "RSS - model", "remark")


@dataclass(slots=True)
class Table:
    """All samples of one checkpoint in one state of the page cache."""

    title: str
    state: str
    method: str = ""
    """How that state was brought about."""
    beside: tuple[str, ...] = PEERS
    """Whom the others are compared with: with the fastest of them."""
    beside_name: str = "best peer"
    others_cpus: list[float] = field(default_factory=list)
    """CPUs that others kept busy during each measurement; above a tenth the numbers are theirs as well."""
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def is_proven(self) -> bool:
        """False where nobody knows whether the page cache was in that state."""
        return not self.method.endswith(UNTOLD)

    def get(self, contestant: str, fact: Callable[[Sample], float] = lambda sample: sample.seconds) -> float | None:
        """The median of a fact, None where the contestant took no part."""
        samples = self.samples.get(contestant)
        return median(map(fact, samples)) if samples else None

    def find_best_peer(self) -> float | None:
        """The median seconds of the fastest of those to compare with."""
        return min((seconds for peer in self.beside if (seconds := self.get(peer)) is not None), default=None)

    def find_worst_rss(self, contestants: tuple[str, ...]) -> float | None:
        """The highest peak RSS above the model, in bytes, of all rounds."""
        samples = [sample for name in contestants for sample in self.samples.get(name, ())]
        return max((sample.peak_rss_bytes - sample.nbytes for sample in samples), default=None)

    def find_differences(self) -> list[str]:
        """Contestants that at least once did not load the bytes that most loads found."""
        sums = {name: [s.touched_sum for s in samples] for name, samples in self.samples.items() if name not in BOUNDS}
        found = [touched_sum for of_one in sums.values() for touched_sum in of_one]
        return [name for name, of_one in sums.items() if set(of_one) != {mode(found)}]

    def to_dict(self) -> dict[str, Any]:
        """All that was found, as JSON types: by row its median, its spread and every sample."""
        rows = {
            row: {
                "seconds": median(sample.seconds for sample in samples),
                "seconds_min": min(sample.seconds for sample in samples),
                "seconds_max": max(sample.seconds for sample in samples),
                "bytes_per_s": self.get(row, lambda sample: sample.nbytes / sample.seconds),
                "samples": [asdict(sample) for sample in samples],
            }
            for row, samples in self.samples.items()
        }
        facts = {"title": self.title, "state": self.state, "method": self.method, "rows": rows, "errors": self.errors}
        return facts | {"other_bytes": self.find_differences()}

    def render(self) -> str:
        """As Markdown, fastest first."""
        best = self.find_best_peer()
        ranked = sorted(self.samples.values(), key=lambda samples: median(s.seconds for s in samples))
        head = tuple(name.format(self.beside_name) for name in _HEAD)
        rows = [head, *(_format_row(samples, best) for samples in ranked)]
        rows += [(name, *[""] * 6, error) for name, error in self.errors.items()]
        others = f"Meanwhile others kept {mean(self.others_cpus or [0]):.2f} CPUs busy."
        wrong = "".join(f"\n\nOTHER BYTES than most loads found: {name}" for name in self.find_differences())
        return f"### {self.title}\n\n{self.state}: {self.method}. {others}\n\n{format_rows(rows)}{wrong}"


def _format_row(samples: list[Sample], best: float | None) -> tuple[str, ...]:
    seconds = [sample.seconds for sample in samples]
    middle = median(seconds)
    above = max(sample.peak_rss_bytes - sample.nbytes for sample in samples) / (1 << 20)
    return (
        samples[0].contestant,
        f"{middle:.3f}",
        f"{min(seconds):.3f}-{max(seconds):.3f}",
        f"{samples[0].nbytes / middle / 1e9:.2f}",
        f"{middle / best:.2f}" if best else "",
        f"{median(sample.cpu_s for sample in samples):.2f}",
        "" if samples[0].contestant in BOUNDS else f"{above:.0f} MiB",
        _remark(samples[-1]),
    )


def _remark(sample: Sample) -> str:
    return sample.note if sample.evidence in ("", "none") else f"{sample.note}; proven by {sample.evidence}"


def format_rows(rows: list[tuple[str, ...]]) -> str:
    """A Markdown table, padded so that it can be read as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
