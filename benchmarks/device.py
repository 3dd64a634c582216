"""All that one machine with one NVIDIA GPU can tell, in one call of at most six minutes, without a network.

    python benchmarks/device.py --wheels wheels --out out            # README.md: which wheels, and how to bring them

Every step has a time limit and a process of its own, so that one failure costs one row; a step that the budget has no
room for, or whose package is not there, is skipped by name. ``out/device.json`` is written after each step,
``out/gpu-tests.txt`` after the tests, ``out/device.md`` and ``out/device.svg`` at the end, be it an early one; nothing
else comes there. ``--device cpu`` is a rehearsal: what needs a GPU is skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from fnmatch import fnmatchcase
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_models import Models
from device_process import LimitError, call, check
from device_run import Run, SkipError, Step
from device_wheels import Wheels

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parent
sys.path[:0] = [str(_ROOT / "src")]

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence

_CORE = ("torch", "blake3", "tqdm")
_FIRST = ("wheels", "facts")
"""Steps that all others need, whichever are asked for."""
_RIVALS = ("fastload-auto", "instanttensor", "fastload-auto-off")
_OTHERS = ("safetensors-prefetch", "fastsafetensors")
_SLOW_PEERS = ("runai", "safetensors", "safetensors-pread")
_TEST_S = 40
"""For one of the tests: one that hangs must not take the time of all others."""


class Device:
    """One run."""

    def __init__(self, asked: argparse.Namespace, out: Path, folders: ExitStack) -> None:
        self._asked = asked
        self._out = out

        def make(above: str | None) -> Path:
            made = tempfile.TemporaryDirectory(dir=above, prefix="fastload-device-", ignore_cleanup_errors=True)
            return Path(folders.enter_context(made))

        unpacked = make(None)
        self._site, self._newer_site = unpacked / "site", unpacked / "site-newer"
        self._folders = {"tmpfs": make(asked.memory), "disk": make(asked.disk)}
        sizes = {"tmpfs": asked.size, "disk": min(asked.size, asked.disk_size)}
        self._models = Models(self._folders, sizes, self._call)
        self._run = Run(out / "device.json", asked.budget)
        self.record = self._run.record
        self._variables = dict(os.environ)
        self._where: dict[str, Any] = {"needs_gpu": asked.device != "cpu", "needs": _CORE}
        # Before anything is unpacked: where that fails, what is installed may do.
        self._prepend("PYTHONPATH", [_ROOT / "src", self._site])
        sys.path[1:1] = [str(self._site)]

    def run(self) -> None:
        """Take the steps in the order of what they are worth."""
        for step in self._list_steps():
            if step.name in _FIRST or any(fnmatchcase(step.name, glob) for glob in self._asked.steps):
                self._run.take(step)

    def _list_steps(self) -> Iterator[Step]:
        yield Step("wheels", 40, 5, self._install, needs_gpu=False)
        yield Step("facts", 60, 5, self._describe, needs_gpu=False)
        yield Step("pinned host to device", 30, 10, partial(self._ask, "ceiling"), needs_gpu=True)
        yield Step("a model in tmpfs", 100, 10, partial(self._make, "tmpfs"), **self._where)
        yield from self._list_loads("tmpfs", _RIVALS, turn=1)
        yield Step("gpu tests", 90, 20, self._test, needs_gpu=True, needs=(*_CORE, "pytest"))
        ours, tritons = partial(self._ask, "brought-digests"), partial(self._ask, "digests")
        yield Step("digests on the device, as loads take them", 30, 12, ours, needs_gpu=True, needs=_CORE)
        yield from self._list_loads("tmpfs", _RIVALS, turn=2)
        for way in ("load", "stream", "load_into"):
            yield Step(f"memory of {way}", 25, 10, partial(self._weigh, way), **self._where)
        yield from self._list_loads("tmpfs", _OTHERS, turn=1)
        yield Step("digests on the device, by Triton", 40, 15, tritons, needs_gpu=True, needs=("triton", *_CORE))
        yield Step("a model on disk", 60, 15, partial(self._make, "disk"), **self._where)
        yield from self._list_loads("cold disk", ("read-direct", "fastload-gds", "fastload-auto"), turn=1)
        yield from self._list_loads("page cache", _RIVALS, turn=1)
        yield from self._list_loads("cold disk", ("fastload-auto-off", "instanttensor", "safetensors-prefetch"), turn=1)
        yield from self._list_loads("page cache", ("safetensors-prefetch",), turn=1)
        yield from self._list_loads("tmpfs", _SLOW_PEERS, turn=1, repeats=2)
        yield from self._list_loads("tmpfs", _OTHERS, turn=2)

    def _list_loads(self, place: str, contestants: Sequence[str], *, turn: int, repeats: int = 3) -> Iterator[Step]:
        for contestant in contestants:
            yield self._load_step(place, contestant, turn, repeats=repeats)

    def _load_step(self, place: str, contestant: str, turn: int, *, repeats: int) -> Step:
        run = partial(self._load, place, contestant, repeats)
        return Step(f"{place}: {contestant}, turn {turn}", 40, 8, run, **self._where)

    def _install(self, limit_s: float) -> dict[str, Any]:
        """Unpack the wheels that were brought, each where only this run finds it; one that does not fit is named."""
        wheels = Wheels(self._asked.wheels, self._site, self._newer_site)
        refused = wheels.unpack(limit_s)
        self._prepend("LD_LIBRARY_PATH", sorted(self._site.glob("nvidia/*/lib")))
        return {"found": {"unpacked": wheels.count - len(refused), "refused": refused}}

    def _prepend(self, variable: str, paths: Sequence[Path]) -> None:
        before = self._variables.get(variable)
        self._variables[variable] = os.pathsep.join([*map(str, paths), *([before] if before else [])])

    def _describe(self, limit_s: float) -> dict[str, Any]:
        from fastload.ops.bench.machine import describe_machine

        found = self._ask("facts", limit_s)["found"]
        self.record.machine |= describe_machine(str(self._folders["disk"])) | found
        return {"found": found}

    def _test(self, limit_s: float) -> dict[str, Any]:
        """Each test says by name how it ended, at once: also where there is no time for all of them."""
        marked = [path for path in sorted((_ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
        flags = ["-v", "-m", "gpu", "-p", "no:cacheprovider", "-o", f"timeout={_TEST_S}"]
        if not (_ROOT / ".demo").exists():
            flags += ["-k", "not real_weights"]  # they come from an index of packages
        log = self._out / "gpu-tests.txt"
        try:
            run = self._call([sys.executable, "-u", "-m", "pytest", *flags, *map(str, marked)], limit_s)
        except LimitError as exc:
            log.write_text(exc.output)
            raise
        log.write_text(run.stdout + run.stderr)
        lines = run.stdout.strip().splitlines()
        outcome = {"found": {"said": lines[-1] if lines else ""}}
        return outcome if run.returncode == 0 else outcome | {"status": "failed", "why": lines[-1] if lines else ""}

    def _ask(self, step: str, limit_s: float, **facts: str) -> dict[str, Any]:
        """Have ``device_steps.py`` take a step."""
        arguments = json.dumps({"device": self._asked.device} | facts)
        run = self._call([sys.executable, str(_HERE / "device_steps.py"), step, arguments], limit_s)
        check(run)
        return {"found": json.loads(run.stdout.splitlines()[-1])}

    def _weigh(self, way: str, limit_s: float) -> dict[str, Any]:
        return self._ask("memory", limit_s, way=way, folder=self._models.get("tmpfs").folder)

    def _call(self, command: list[str], limit_s: float) -> subprocess.CompletedProcess[str]:
        return call(command, limit_s, variables=self._variables, folder=_ROOT)

    def _make(self, place: str, limit_s: float) -> dict[str, Any]:
        if place == "tmpfs" and self._asked.model:
            return self._models.use(place, self._asked.model)
        return self._models.make(place, self.record.machine.get("gpu_bytes"), limit_s)

    def _load(self, place: str, contestant: str, repeats: int, limit_s: float) -> dict[str, Any]:
        """Several loads in one process: the first one pays for all that a process must set up."""
        from fastload.ops.bench.contestants import find_obstacle
        from fastload.ops.bench.files import Trial
        from fastload.ops.bench.measure import Job
        from fastload.ops.bench.page_cache import evict, fill
        from fastload.ops.bench.process import run_job

        variables = dict(self._variables)
        if contestant == "safetensors-prefetch" and self._newer_site.exists():
            variables["PYTHONPATH"] = os.pathsep.join([str(self._newer_site), variables["PYTHONPATH"]])
        elif (why := find_obstacle(contestant, self._asked.device)) is not None:
            raise SkipError(why)
        prepare = _leave if place == "tmpfs" else fill if place == "page cache" else partial(evict, may_drop_all=True)
        files = self._models.get("tmpfs" if place == "tmpfs" else "disk")
        job = Job(contestant, Trial(files, self._asked.device), None, repeats)
        samples = run_job(job, prepare, timeout_s=limit_s, variables=variables)
        return {"samples": [asdict(sample) for sample in samples]}


def _leave(_: Sequence[str]) -> str:
    """In memory a file is neither cold nor cached."""
    return ""


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", help="cpu: rehearse")
    parser.add_argument("--out", default="out", help="a folder for what is found")
    parser.add_argument("--wheels", metavar="DIR", help="wheels that were brought along")
    parser.add_argument("--memory", default="/dev/shm", help="a folder in memory")  # noqa: S108 - models, not secrets
    parser.add_argument("--model", metavar="DIR", help="a model in memory that was made before, with a manifest")
    parser.add_argument("--disk", default=".", help="a folder on the disk to be measured")
    parser.add_argument("--size", type=_parse_size, default=48 * 10**9, help="of the model in memory (default: 48G)")
    parser.add_argument("--disk-size", type=_parse_size, default=4 * 10**9, help="of the one on disk (default: 4G)")
    parser.add_argument("--budget", type=float, default=340, metavar="S", help="of all steps (default: 340)")
    parser.add_argument(
        "--steps", nargs="+", default=["*"], metavar="GLOB", help="only these steps, after the first two"
    )
    return parser.parse_args()


def _parse_size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([kMG]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size, such as 48G")
    return int(match[1]) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[match[2]]


def main() -> int:
    """Measure, and write down what was found."""
    asked = _parse_arguments()
    out = Path(asked.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with ExitStack() as folders:
        device = Device(asked, out, folders)
        try:
            device.run()
        finally:
            _tell(device, out)
    return 0


def _tell(device: Device, out: Path) -> None:
    if find_spec("blake3") is None:
        print(f"no table without blake3: see {out / 'device.json'}")
        return
    from device_report import draw, render

    text = render(device.record.machine, device.record.steps)
    (out / "device.md").write_text(text)
    (out / "device.svg").write_text(draw(device.record.steps))
    print(text)


if __name__ == "__main__":
    sys.exit(main())
