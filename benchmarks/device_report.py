"""What ``device.py`` found, as one table, a verdict per target, and bars."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from fastload.ops.bench.chart import draw_chart
from fastload.ops.bench.measure import Sample
from fastload.ops.bench.tables import Table, format_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Steps = Mapping[str, Mapping[str, Any]]
    Loads = Mapping[tuple[str, str], Sequence[Sequence[Sample]]]

_HEAD = ("where: who", "first, GB/s", "then, GB/s", "min-max", "x H2D", "device - model", "remark")
_CEILING = "pinned host to device"
_MIB = 1 << 20
_ROOM_MIB = 256


def collect_samples(steps: Steps) -> dict[tuple[str, str], list[list[Sample]]]:
    """The loads by place and contestant; of each turn a list, whose first is the first load of a process."""
    found: dict[tuple[str, str], list[list[Sample]]] = {}
    for name, step in steps.items():
        if "samples" in step:
            place, _, rest = name.partition(": ")
            turn = [Sample(**facts) for facts in step["samples"]]
            found.setdefault((place, rest.partition(",")[0]), []).append(turn)
    return found


def find_ceiling(steps: Steps) -> float | None:
    """GB/s from pinned memory: the best number of streams. None: not measured, or not with all of it pinned."""
    found = steps.get(_CEILING, {}).get("found")
    return max(rate["median"] for rate in found["gb_per_s"].values()) if found and found["pinned"] else None


def render(machine: Mapping[str, Any], steps: Steps) -> str:
    """Markdown."""
    ceiling = find_ceiling(steps)
    loads = collect_samples(steps)
    rows = [_HEAD, *(_format_load(who, turns, ceiling) for who, turns in loads.items())]
    facts = [f"{name}: {value}" for name, value in machine.items()]
    others = [f"- {name}: {_tell(step)}" for name, step in steps.items() if "samples" not in step]
    return "\n\n".join(
        [
            "# On one GPU",
            "\n".join(f"- {fact}" for fact in facts),
            format_rows(rows),
            "\n".join(others),
            _judge([*_find_other_bytes(loads), *_list_verdicts(loads, ceiling), *_judge_memory(steps)]),
        ]
    )


def _format_load(who: tuple[str, str], turns: Sequence[Sequence[Sample]], ceiling: float | None) -> tuple[str, ...]:
    firsts, steady = [_speed(turn[0]) for turn in turns], [_speed(s) for turn in turns for s in turn[1:]]
    last = turns[-1][-1]
    above = max(s.peak_device_bytes - s.nbytes for turn in turns for s in turn)
    return (
        ": ".join(who),
        f"{median(firsts):.2f}",
        f"{median(steady):.2f}" if steady else "",
        f"{min(steady):.2f}-{max(steady):.2f}" if steady else "",
        f"{median(steady) / ceiling:.2f}" if steady and ceiling else "",
        f"{above / _MIB:.0f} MiB" if last.peak_device_bytes else "",
        "; ".join(filter(None, [last.note, last.evidence, last.bottleneck])),
    )


def _tell(step: Mapping[str, Any]) -> str:
    if step["status"] != "ok":
        return f"{step['status']}: {step.get('why', '')}"
    return ", ".join(f"{key} {value}" for key, value in step.get("found", {}).items()) or "ok"


def _judge(verdicts: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in verdicts) or "- no target was measured"


def _find_other_bytes(loads: Loads) -> Iterator[str]:
    """Who did not load what most of them did; each of the two models by itself."""
    for places in (("tmpfs",), ("cold disk", "page cache")):
        table = Table(places[0], places[0])
        for (place, who), turns in loads.items():
            if place in places:
                table.samples.setdefault(who, []).extend(sample for turn in turns for sample in turn)
        yield from (f"OTHER BYTES {' or '.join(places)}: {who}" for who in table.find_differences())


def _judge_memory(steps: Steps) -> Iterator[str]:
    for name, step in steps.items():
        found = step.get("found", {})
        if name.startswith("memory of ") and found.get("device_peak_bytes"):
            peak, above = found["device_peak_bytes"] / _MIB, (found["device_peak_bytes"] - found["model_bytes"]) / _MIB
            # A stream keeps nothing of what it has handed out.
            says = f"{above:.0f} MiB above the model's" if above >= 0 else f"{peak:,.0f} MiB in all"
            yield f"{'met' if above <= _ROOM_MIB else 'MISSED'} {name}: {says}, at most 256 above it"
            pinned = found["staging_bytes"] / _MIB
            yield f"{'met' if pinned <= _ROOM_MIB else 'MISSED'} {name}: {pinned:.0f} MiB pinned, at most 256"


def _list_verdicts(loads: Loads, ceiling: float | None) -> Iterator[str]:
    for place in ("tmpfs", "page cache"):
        ours = _steady(loads, place, "fastload-auto")
        if ours is None or ceiling is None:
            continue
        yield _verdict(f"{place}: steady / pinned H2D >= 0.92", ours / ceiling, 0.92)
        rival = _steady(loads, place, "instanttensor")
        if rival is not None:
            yield _verdict(
                f"{place}: steady / min(1.05 x InstantTensor, 0.95 x H2D) >= 1",
                ours / min(1.05 * rival, 0.95 * ceiling),
                1,
            )
    firsts = {
        who: median(_speed(turn[0]) for turn in turns) for (place, who), turns in loads.items() if place == "tmpfs"
    }
    peers = [speed for who, speed in firsts.items() if not who.startswith("fastload")]
    if peers and "fastload-auto" in firsts and ceiling is not None:
        yield _verdict("tmpfs: first load / fastest peer's > 1", firsts["fastload-auto"] / max(peers), 1)
    off = _steady(loads, "tmpfs", "fastload-auto-off")
    proven = _steady(loads, "tmpfs", "fastload-auto")
    if proven is not None and off is not None:
        yield _verdict("tmpfs: proven / not proven >= 1 / 1.02", proven / off, 1 / 1.02)
    cold, disk = (_steady(loads, "cold disk", who) for who in ("fastload-auto", "read-direct"))
    if cold is not None and disk is not None:
        yield _verdict("cold disk: load / what the disk gives >= 0.95", cold / disk, 0.95)


def _verdict(promise: str, found: float, limit: float) -> str:
    return f"{'met' if found >= limit else 'MISSED'} {promise}: {found:.3f}"


def _steady(loads: Loads, place: str, who: str) -> float | None:
    """The median speed of all loads but each process's first."""
    speeds = [_speed(sample) for turn in loads.get((place, who), ()) for sample in turn[1:]]
    return median(speeds) if speeds else None


def _speed(sample: Sample) -> float:
    return sample.nbytes / sample.seconds / 1e9


def draw(steps: Steps) -> str:
    """Bars by place, of all loads but each process's first."""
    tables: dict[str, Table] = {}
    for (place, who), turns in collect_samples(steps).items():
        steady = [sample for turn in turns for sample in turn[1:]]
        if steady:
            tables.setdefault(place, Table(place, place)).samples[who] = steady
    return draw_chart(list(tables.values()))
