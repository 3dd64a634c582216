"""All that the doctor looks at, in one go."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from fastload._fetch.deadline import Deadline
from fastload._fetch.find.resolve import tiers_of
from fastload._fetch.workers import begin
from fastload._store.patience import ask_all
from fastload._system_file import read_text
from fastload._tier import LOCAL, Tier, shared_tier
from fastload.errors import DeadlineError, FastloadError, StoreError
from fastload.ops.doctor.finding import FATAL, SEVERITIES, Finding
from fastload.ops.doctor.gpu import Gpu, judge_gpu, look_at_gpu
from fastload.ops.doctor.installation import Installation, judge_hub, judge_owners, look_at_installation
from fastload.ops.doctor.machine import Machine, judge_machine, look_at_machine
from fastload.ops.doctor.mount_judge import judge_mount
from fastload.ops.doctor.mountinfo import Mount, find_mount, parse_mountinfo
from fastload.ops.doctor.mountstats import NfsStats, parse_mountstats
from fastload.ops.doctor.volume import Volume, describe_no_local, describe_silent, judge_local, judge_shared, look_at
from fastload.ops.doctor.way import Way, find_way, judge_failure, judge_slow, judge_way
from fastload.options import Options

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

    from fastload._fetch.evidence.evidence import Evidence
    from fastload._store.root import Root
    from fastload.options import Settings

_TIERS_PATIENCE_S = 3.0
_LEAST_S = 0.5
"""For the model, however long the tiers took."""
_OF_HUB = 0.8
"""Of the time for the model: what the hub did not say in it is the hub's error, and no unknown one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingFacts:
    """One setting, as it was decided."""

    name: str
    value: str
    origin: str
    """``default``, a file, ``the environment`` or ``the call``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TierFacts:
    """One tier that is a folder."""

    label: str
    path: str
    mount: Mount | None
    """By the path as it is written, where the tier did not answer."""
    nfs: NfsStats | None
    volume: Volume | None
    """None: it did not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What was seen, and what of it matters."""

    settings: tuple[SettingFacts, ...]
    tiers: tuple[TierFacts, ...]
    machine: Machine
    gpu: Gpu
    installation: Installation
    way: Way | None
    """Of the model that was asked about."""
    findings: tuple[Finding, ...]
    """Worst first."""

    @property
    def fatal(self) -> tuple[Finding, ...]:
        """Those that make loads fail."""
        return tuple(finding for finding in self.findings if finding.severity == FATAL)

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON types."""
        return {"schema": 1, **asdict(self)}


def diagnose(settings: Settings, model: str | None, budget: Deadline) -> Diagnosis:
    """Look at everything; what does not answer, such as a dead mount, costs what is left of ``budget`` at most."""
    installed, _ = begin(lambda: look_at_installation(settings), "fastload-token")  # may hang as long as tiers
    tiers = _look_at_tiers(settings, min(_TIERS_PATIENCE_S, budget.left_s or 0.0))
    machine, gpu, installation = look_at_machine(), look_at_gpu(settings.cufile), installed.result()
    findings = [] if settings.local else [describe_no_local()]
    findings += [finding for tier, look in tiers.items() for finding in _judge_tier(tier, *look, settings)]
    findings += [*judge_machine(machine), *judge_gpu(gpu, has_udev=machine.has_udev)]
    findings += [*judge_owners(installation.owners), *judge_hub(installation, settings)]
    way = None
    if model is not None:
        heard = _without(settings, {tier for tier, (_, problem) in tiers.items() if problem is not None})
        way, found = _look_at_way(model, heard, gpu, max(_LEAST_S, budget.left_s or 0.0))
        findings += found
    return Diagnosis(
        settings=tuple(_describe_settings(settings)),
        tiers=tuple(facts for facts, _ in tiers.values()),
        machine=machine,
        gpu=gpu,
        installation=installation,
        way=way,
        findings=tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
    )


def _without(settings: Settings, silent: Container[Tier]) -> Settings:
    """Without those tiers that did not answer before: each would be waited for again."""
    return replace(
        settings,
        tiers=tuple(kind for kind in settings.tiers if Tier(kind) not in silent),
        shared=tuple(path for path in settings.shared if shared_tier(path) not in silent),
    )


def _look_at_way(model: str, settings: Settings, gpu: Gpu, patience_s: float) -> tuple[Way | None, list[Finding]]:
    """The way of a load, and what there is to say of it; None: it would fail, or takes longer to find out."""
    weighed: list[Evidence] = []
    patient = replace(settings, deadline=_OF_HUB * patience_s)
    looking = Deadline(patience_s, f"looking for {model}", grace_s=0.0)
    try:
        way = looking.within(lambda: find_way(model, patient, gpu, when_weighed=weighed.append))
    except DeadlineError as exc:
        return None, [judge_slow(model, patience_s) if weighed else judge_failure(model, exc)]
    except FastloadError as exc:
        return None, [judge_failure(model, exc)]
    return way, list(judge_way(way))


def _describe_settings(settings: Settings) -> Iterator[SettingFacts]:
    for field in fields(Options):
        value = getattr(settings, field.name)
        yield SettingFacts(name=field.name, value=_show(value), origin=settings.origins.get(field.name, "default"))


def _show(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    if is_dataclass(value) and hasattr(value, "fraction"):
        return f"{value.fraction:.0%}" if value.fraction else f"{getattr(value, 'nbytes', 0)}"
    return "none" if value in {None, ""} else str(value)


def _look_at_tiers(settings: Settings, patience_s: float) -> dict[Tier, tuple[TierFacts, str | None]]:
    """Each tier that may be asked, in order, and why it did not answer."""
    roots = tiers_of(settings).roots
    asked = ask_all(roots, _look_at_root, patience_s=patience_s)
    volumes = {root.tier: volume for root, volume in asked.replies}
    problems = {root.tier: reason for root, reason in asked.silent}
    mounts = parse_mountinfo(read_text("/proc/self/mountinfo", errors="surrogateescape"))
    stats = parse_mountstats(read_text("/proc/self/mountstats", errors="surrogateescape"))
    return {
        root.tier: (_describe_tier(root, volumes.get(root.tier), mounts, stats), problems.get(root.tier))
        for root in roots
    }


def _describe_tier(
    root: Root, volume: Volume | None, mounts: tuple[Mount, ...], stats: Mapping[str, NfsStats]
) -> TierFacts:
    mount = find_mount(mounts, volume.real_path if volume is not None else root.path)
    nfs = stats.get(mount.point) if mount is not None else None
    return TierFacts(label=str(root.tier), path=root.path, mount=mount, nfs=nfs, volume=volume)


def _look_at_root(root: Root) -> Volume:
    try:
        return look_at(root.path)
    except OSError as exc:
        raise StoreError(root.path, str(exc.strerror), "Check the mount") from exc


def _judge_tier(tier: Tier, facts: TierFacts, problem: str | None, settings: Settings) -> Iterator[Finding]:
    is_local = tier == LOCAL
    if facts.mount is not None:
        yield from judge_mount(facts.mount, facts.nfs, is_local=is_local)
    if facts.volume is None:
        yield describe_silent(facts.label, facts.path, problem or "no answer", is_local=is_local)
    elif is_local:
        yield from judge_local(facts.volume, settings.min_free)
    else:
        yield from judge_shared(facts.volume)
