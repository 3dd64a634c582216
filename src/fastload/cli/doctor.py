"""``fastload doctor [MODEL]``: which way a load would take here, and what stands in it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from fastload._fetch.deadline import Deadline
from fastload.cli.model import add_settings, parse_settings
from fastload.cli.several import PartialError
from fastload.cli.text import show_bytes, show_json, show_table
from fastload.errors import escaped
from fastload.ops.doctor.examine import diagnose
from fastload.ops.doctor.finding import UnfitError
from fastload.options import decide_settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from fastload.ops.doctor.examine import Diagnosis, TierFacts
    from fastload.ops.doctor.finding import Finding

HELP = "say which tier, reader and evidence a load would use and why, and what to mend; ends with 22 if it would fail"
_PAST_SHOWN = 5
_PATIENCE_S = 4.2
"""For all that is looked at, together: with Python's start and what is printed, a dead mount costs five seconds."""
_SETTINGS_PATIENCE_S = 3.0
_HINT = "HOME, XDG_CONFIG_HOME or FASTLOAD_CONFIG lead to storage that does not answer"
_MOUNT_OPTIONS = ("ro", "vers", "proto", "nconnect", "rsize", "wsize", "hard", "soft", "local_lock")
"""Those that decide how fast and how safely a model is read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A model, if any, and the settings."""
    parser.add_argument("model", metavar="MODEL", nargs="?", help="what a load of this would do")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print what was seen and found; fail if something fatal was."""
    # As keywords, so that the origin of a flag is "the call".
    budget = Deadline(_PATIENCE_S, "looking at this machine")
    reading = Deadline(_SETTINGS_PATIENCE_S, "reading the settings", _HINT, grace_s=0.0)
    settings = reading.within(lambda: decide_settings(None, asdict(parse_settings(arguments))))
    seen = diagnose(settings, arguments.model, budget)
    if not arguments.as_json:
        print(_show(seen))
    if seen.fatal:
        raise PartialError(UnfitError(seen.fatal), seen.to_dict())
    if arguments.as_json:
        print(show_json(seen.to_dict()))


def _show(seen: Diagnosis) -> str:
    settings = show_table(
        [("setting", "value", "from"), *((s.name, escaped(s.value), s.origin) for s in seen.settings)]
    )
    tiers = show_table([row for facts in seen.tiers for row in _show_tier(facts)]) if seen.tiers else "no tier"
    parts = [settings, tiers, show_table(_show_machine(seen))]
    if seen.way is not None:
        parts.append(show_table(_show_way(seen)))
    parts += [_show_finding(finding) for finding in seen.findings] or ["nothing to mend"]
    return "\n\n".join(parts)


def _show_tier(facts: TierFacts) -> Iterator[tuple[str, str]]:
    yield escaped(facts.label), escaped(facts.path)
    if facts.mount is not None:
        shown = [f"{o}={v}" if v else o for o in _MOUNT_OPTIONS if (v := facts.mount.options.get(o)) is not None]
        yield "", f"{facts.mount.kind} {escaped(facts.mount.source)} at {escaped(facts.mount.point)} {','.join(shown)}"
    if facts.nfs is not None:
        speed = f", {facts.nfs.ms_per_read:.1f} ms a read" if facts.nfs.ms_per_read is not None else ""
        yield "", f"{facts.nfs.transport}, {facts.nfs.connections} connections, {facts.nfs.reads:,} reads{speed}"
    if facts.volume is None:
        yield "", "did not answer"
        return
    state = "exists" if facts.volume.exists else "does not exist yet"
    access = "writable" if facts.volume.is_writable else f"not writable (belongs to {facts.volume.owner})"
    space = f"{show_bytes(facts.volume.free_bytes)} of {show_bytes(facts.volume.total_bytes)} free"
    yield "", f"{state}, {access}, {space}"


def _show_machine(seen: Diagnosis) -> Iterator[tuple[str, str]]:
    machine, gpu = seen.machine, seen.gpu
    memlock = "unlimited" if machine.memlock_bytes is None else show_bytes(machine.memlock_bytes)
    shm = "none" if machine.shm_bytes is None else show_bytes(machine.shm_bytes)
    cpus = f"{machine.cpus}" if machine.cpu_quota is None else f"{machine.cpu_quota:g} of {machine.cpus}"
    yield "cpu", f"{cpus}, {machine.open_files} open files, memlock {memlock}, /dev/shm {shm}"
    yield "memory", f"{show_bytes(max(0, machine.available_bytes))} ({machine.memory_limit})"
    yield "kernel", f"seccomp {machine.seccomp}, transparent huge pages {machine.huge_pages or 'not known'}"
    torch = f"torch {gpu.torch or 'not installed'}" + (f" for CUDA {gpu.torch_cuda}" if gpu.torch_cuda else "")
    yield "gpu", f"{gpu.devices} devices, driver {gpu.driver or 'none'}, {torch}"
    present = {"kvikio " + (gpu.kvikio or ""): gpu.kvikio, "cuFile": gpu.has_cufile, "nvidia-fs": gpu.has_nvidia_fs}
    words = [f"{name.strip()}{'' if there else ' not there'}" for name, there in present.items()]
    yield "gds", ", ".join([*words, f"/run/udev{'' if machine.has_udev else ' not there'}"])
    token = {True: "seen", False: "not seen", None: "not looked for: the hub is not asked"}
    if gpu.devices:
        yield "past the host", gpu.gds_obstacle or "may be tried: a load to the GPU measures which way is faster"
    yield "token", token[seen.installation.has_token]


def _show_way(seen: Diagnosis) -> Iterator[tuple[str, str]]:
    way = seen.way
    if way is not None:
        yield "model", escaped(way.model) + (f" at {way.commit}" if way.commit else "")
        yield "tier", f"{escaped(way.tier)}: {way.tier_reason}"
        yield "path", escaped(way.path)
        yield "reader", f"{way.reader}: {way.reader_reason}"
        yield "evidence", f"{way.evidence}: {way.evidence_reason}"
        for load in reversed(way.past[-_PAST_SHOWN:]):
            speed = f"{load.gb_per_s:.2f} GB/s to {load.device} in {load.seconds:.2f} s"
            yield "loaded", f"{load.finished}: {speed}, {load.reader}, bound by {load.bound_by}"
        if way.past_reason:
            yield "loads", f"leave nothing to compare: {way.past_reason}; the log of each has its speed"


def _show_finding(finding: Finding) -> str:
    return (
        f"{finding.severity}: {escaped(finding.what)}\n  why   {escaped(finding.why)}\n  mend  {escaped(finding.cure)}"
    )
