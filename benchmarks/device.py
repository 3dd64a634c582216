"""All that one machine with one NVIDIA GPU can tell, in one call of at most six minutes, without a network.

    python benchmarks/device.py --wheels wheels --out out            # README.md: which wheels, and how to bring them

Every step has a time limit and a process of its own, so that one failure costs one row; a step that the budget has no
room for, or whose package is not there, is skipped by name. ``out/device.json`` is written after each step,
``out/gpu-tests.txt`` after the tests, ``out/device.md`` and ``out/device.svg`` at the end. ``--device cpu`` is a
rehearsal: what needs a GPU is skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from fnmatch import fnmatchcase
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_run import Run, SkipError, Step

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parent
sys.path[:0] = [str(_ROOT / "src")]

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastload.ops.bench.files import Files

GIB = 1 << 30
_CORE = ("torch", "blake3", "tqdm")
_TURNS = 2
_PEERS = ("instanttensor", "safetensors-prefetch", "fastsafetensors", "runai")
_SLOW_PEERS = ("safetensors", "safetensors-pread")


class Device:
    """One run."""

    def __init__(self, asked: argparse.Namespace, out: Path) -> None:
        self._asked = asked
        self._out = out
        self._site, self._newer_site = out / "site", out / "site-newer"
        self._folders = {"tmpfs": Path(asked.memory), "disk": Path(asked.disk)}
        self._run = Run(out / "device.json", asked.budget)
        self.record = self._run.record
        self._variables = dict(os.environ)
        self._where: dict[str, Any] = {"needs_gpu": asked.device != "cpu", "needs": _CORE}
        self._models: dict[str, Files] = {}

    def run(self) -> None:
        """Take the steps in the order of what they are worth."""
        with (
            tempfile.TemporaryDirectory(dir=self._asked.memory, prefix="fastload-device-") as memory,
            tempfile.TemporaryDirectory(dir=self._asked.disk, prefix="fastload-device-") as disk,
        ):
            self._folders = {"tmpfs": Path(memory), "disk": Path(disk)}
            for step in self._list_steps():
                if any(fnmatchcase(step.name, glob) for glob in self._asked.steps):
                    self._run.take(step)

    def _list_steps(self) -> Iterator[Step]:
        yield Step("wheels", 40, 5, self._install, needs_gpu=False)
        yield Step("facts", 60, 5, self._describe, needs_gpu=False)
        yield Step("gpu tests", 90, 20, self._test, needs_gpu=True, needs=(*_CORE, "pytest"))
        yield Step("pinned host to device", 30, 10, partial(self._ask, "ceiling"), needs_gpu=True)
        yield Step(
            "digests on the device", 40, 15, partial(self._ask, "digests"), needs_gpu=True, needs=("triton", *_CORE)
        )
        yield Step("a model in tmpfs", 60, 10, partial(self._make, "tmpfs"), **self._where)
        for turn in range(1, _TURNS + 1):
            for contestant in ("fastload-auto", *_PEERS, "fastload-auto-off"):
                yield self._load_step("tmpfs", contestant, turn, repeats=3)
            if turn == 1:
                for way in ("load", "stream", "load_into"):
                    yield Step(f"memory of {way}", 25, 10, partial(self._weigh, way), **self._where)
                yield Step("a model on disk", 60, 15, partial(self._make, "disk"), **self._where)
                yield from self._list_disk_steps()
        for contestant in _SLOW_PEERS:
            yield self._load_step("tmpfs", contestant, 1, repeats=2)

    def _list_disk_steps(self) -> Iterator[Step]:
        for state in ("cold disk", "page cache"):
            readings = ("read-direct", "fastload-gds") if state == "cold disk" else ()
            for contestant in (
                *readings,
                "fastload-auto",
                "instanttensor",
                "safetensors-prefetch",
                "fastload-auto-off",
            ):
                yield self._load_step(state, contestant, 1, repeats=3)

    def _load_step(self, place: str, contestant: str, turn: int, *, repeats: int) -> Step:
        run = partial(self._load, place, contestant, repeats)
        return Step(f"{place}: {contestant}, turn {turn}", 40, 8, run, **self._where)

    def _install(self, limit_s: float) -> dict[str, Any]:
        """Unpack the wheels that were brought, each where only this run finds it; one that does not fit is named."""
        wheels = sorted(Path(self._asked.wheels).rglob("*.whl")) if self._asked.wheels else []
        # safetensors 0.9 must not hide the 0.8 that the tests are written for.
        newer = [wheel for wheel in wheels if wheel.name.startswith("safetensors-0.9")]
        refused = self._unpack([wheel for wheel in wheels if wheel not in newer], self._site, limit_s)
        refused += self._unpack(newer, self._newer_site, limit_s)
        self._prepend("PYTHONPATH", [_ROOT / "src", self._site])
        self._prepend("LD_LIBRARY_PATH", sorted(self._site.glob("nvidia/*/lib")))
        sys.path[1:1] = [str(self._site)]
        return {"found": {"unpacked": len(wheels) - len(refused), "refused": refused}}

    @staticmethod
    def _unpack(wheels: Sequence[Path], folder: Path, limit_s: float) -> list[str]:
        """All at once, which is fast; where one does not fit, one by one. The names of those that do not."""
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--upgrade"]

        def fits(some: Sequence[Path]) -> bool:
            run = [*command, "--target", str(folder), *map(str, some)]
            return subprocess.run(run, check=False, capture_output=True, timeout=limit_s).returncode == 0

        return [] if not wheels or fits(wheels) else [wheel.name for wheel in wheels if not fits([wheel])]

    def _prepend(self, variable: str, paths: Sequence[Path]) -> None:
        before = self._variables.get(variable)
        self._variables[variable] = os.pathsep.join([*map(str, paths), *([before] if before else [])])

    def _describe(self, limit_s: float) -> dict[str, Any]:
        from fastload.ops.bench.machine import describe_machine

        found = self._ask("facts", limit_s)["found"]
        self.record.machine |= describe_machine(str(self._folders["disk"])) | found
        return {"found": found}

    def _test(self, limit_s: float) -> dict[str, Any]:
        marked = [path for path in sorted((_ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *map(str, marked)]
        if not (_ROOT / ".demo").exists():
            command += ["-k", "not real_weights"]  # they come from an index of packages
        run = self._call(command, limit_s)
        (self._out / "gpu-tests.txt").write_text(run.stdout + run.stderr)
        lines = run.stdout.strip().splitlines()
        outcome = {"found": {"said": lines[-1] if lines else ""}}
        return outcome if run.returncode == 0 else outcome | {"status": "failed", "why": lines[-1] if lines else ""}

    def _ask(self, step: str, limit_s: float, **facts: str) -> dict[str, Any]:
        """Have ``device_steps.py`` take a step."""
        arguments = json.dumps({"device": self._asked.device} | facts)
        run = self._call([sys.executable, str(_HERE / "device_steps.py"), step, arguments], limit_s)
        if run.returncode:
            raise RuntimeError((run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1])
        return {"found": json.loads(run.stdout.splitlines()[-1])}

    def _weigh(self, way: str, limit_s: float) -> dict[str, Any]:
        return self._ask("memory", limit_s, way=way, folder=self._model("tmpfs").folder)

    def _call(self, command: list[str], limit_s: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=limit_s, env=self._variables, cwd=_ROOT
        )

    def _make(self, place: str, limit_s: float) -> dict[str, Any]:
        """A model, with a manifest of its blocks, so that there is something to prove it by."""
        from fastload.ops.bench.checkpoint import list_llama

        if place == "tmpfs" and self._asked.model:
            return self._use(self._asked.model)
        folder = self._folders[place]
        size_bytes = self._choose_size(place)
        shards = max(1, round(size_bytes / (4 * GIB)))
        code = (
            "import sys; from fastload.ops.bench.checkpoint import list_llama, write_checkpoint\n"
            "if __name__ == '__main__':\n"
            "    folder, size, shards, processes = sys.argv[1], *map(int, sys.argv[2:])\n"
            "    write_checkpoint(folder, list_llama(size), shards=shards, processes=processes)\n"
            "    import fastload; fastload.verify(folder, record=True)\n"
        )
        script = self._out / "make.py"
        script.write_text(code)
        processes = min(shards, len(os.sched_getaffinity(0)))
        command = [sys.executable, str(script), str(folder), *map(str, (size_bytes, shards, processes))]
        run = self._call(command, limit_s)
        if run.returncode:
            shutil.rmtree(folder)
            folder.mkdir()
            raise RuntimeError((run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1])
        from fastload.ops.bench.files import list_files

        self._models[place] = list_files(str(folder))
        return {
            "found": {"bytes": self._models[place].nbytes, "shards": shards, "tensors": len(list_llama(size_bytes))}
        }

    def _use(self, folder: str) -> dict[str, Any]:
        """A model that is there."""
        from fastload.ops.bench.files import list_files

        files = list_files(folder)
        if not files.paths:
            raise SkipError(f"there are no shards in {folder}")
        self._models["tmpfs"] = files
        return {"found": {"bytes": self._models["tmpfs"].nbytes, "shards": len(self._models["tmpfs"].paths)}}

    def _choose_size(self, place: str) -> int:
        """What was asked for, or what memory, disk and GPU allow."""
        room_bytes = shutil.disk_usage(self._folders[place]).free
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        memory_bytes = int(fields["MemAvailable"].split()[0]) * 1024
        asked_bytes = self._asked.size if place == "tmpfs" else min(self._asked.size, self._asked.disk_size)
        gpu_bytes = self.record.machine.get("gpu_bytes", asked_bytes * 2)
        allowed_bytes = int(min(asked_bytes, room_bytes * 0.8, memory_bytes * 0.45, gpu_bytes * 0.7))
        if allowed_bytes < min(asked_bytes, GIB):
            raise SkipError(f"there is room for {allowed_bytes:,} bytes only")
        return allowed_bytes

    def _model(self, place: str) -> Files:
        where = "tmpfs" if place == "tmpfs" else "disk"
        if where not in self._models:
            raise SkipError(f"there is no model ({where})")
        return self._models[where]

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
        job = Job(contestant, Trial(self._model(place), self._asked.device), None, repeats)
        samples = run_job(job, prepare, timeout_s=limit_s, variables=variables)
        return {"samples": [asdict(sample) for sample in samples]}


def _leave(_: Sequence[str]) -> str:
    """In memory a file is neither cold nor cached."""
    return ""


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", help="cpu: rehearse")
    parser.add_argument("--out", default="out", help="a folder for what is found, and for the wheels' content")
    parser.add_argument("--wheels", metavar="DIR", help="wheels that were brought along")
    parser.add_argument("--memory", default="/dev/shm", help="a folder in memory")  # noqa: S108 - models, not secrets
    parser.add_argument("--model", metavar="DIR", help="a model in memory that was made before, with a manifest")
    parser.add_argument("--disk", default=".", help="a folder on the disk to be measured")
    parser.add_argument("--size", type=_parse_size, default=48 * 10**9, help="of the model in memory (default: 48G)")
    parser.add_argument("--disk-size", type=_parse_size, default=12 * 10**9, help="of the one on disk (default: 12G)")
    parser.add_argument("--budget", type=float, default=340, metavar="S", help="of all steps (default: 340)")
    parser.add_argument("--steps", nargs="+", default=["*"], metavar="GLOB", help="only these steps")
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
    device = Device(asked, out)
    device.run()
    if find_spec("blake3") is None:
        print(f"no table without blake3: see {out / 'device.json'}")
        return 0
    from device_report import draw, render

    text = render(device.record.machine, device.record.steps)
    (out / "device.md").write_text(text)
    (out / "device.svg").write_text(draw(device.record.steps))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
