"""Does what the Dockerfiles' RUN lines do, in folders instead of images, and tries what comes of it. By `make package`.

What this cannot show is said there too: no image was built, and vLLM's own was not pulled.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

_CHECKOUT = Path(__file__).parents[1]
_MAX_BYTES = 150_000_000
_HEAVY = ("torch", "numpy", "nvidia", "triton")
_ENTRY_POINTS = """
import json, sys
from importlib.metadata import entry_points
(found,) = entry_points(group="vllm.general_plugins", name="fastload")
found.load()
print(json.dumps([found.value, "torch" in sys.modules]))
"""


def main(model: str) -> None:
    """Raise where an image would not be what it should be."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for line in _run_lines("warm.Dockerfile"):
            _do(line, folder)
        _try_warm(folder / "opt", model)
        _try_beside(folder / "opt")


def _run_lines(dockerfile: str) -> list[str]:
    text = (_CHECKOUT / "examples" / "docker" / dockerfile).read_text().replace("\\\n", "")
    return re.findall(r"^RUN (.*)$", text, re.MULTILINE)


def _do(line: str, folder: Path) -> None:
    """The shell line, with this Python's pip, into ``folder`` instead of ``/``."""
    line = line.replace("pip ", f"{sys.executable} -m pip --quiet --disable-pip-version-check ")
    line = line.replace("/opt/", f"{folder}/opt/").replace(" /src", f" {_CHECKOUT}")
    subprocess.run(["sh", "-euc", line], check=True)


def _try_warm(opt: Path, model: str) -> None:
    nbytes = sum(file.stat().st_size for file in opt.rglob("*") if file.is_file())
    print(f"the warm image has {nbytes / 1e6:.0f} MB of packages")
    assert nbytes < _MAX_BYTES
    names = [path.name.lower() for path in (opt / "all").iterdir()]
    assert not [name for name in names if name.startswith(_HEAVY)], names
    done = _python(opt, ["-m", "fastload", "inspect", "--json", model], f"{opt}/fastload:{opt}/all")
    assert len(json.loads(done)["tensors"]) == 104


def _try_beside(opt: Path) -> None:
    """As in vLLM's image: the package alone on PYTHONPATH, and the plugin is found."""
    assert {path.name for path in (opt / "fastload").iterdir()} <= {"fastload", "fastload_llm-0.1.0.dist-info", "bin"}
    value, has_torch = json.loads(_python(opt, ["-c", _ENTRY_POINTS], f"{opt}/fastload"))
    assert (value, has_torch) == ("fastload.integrations.vllm:register", False)


def _python(opt: Path, words: list[str], path: str) -> str:
    """A bare environment: no HOME, nothing but what an image sets."""
    command = [sys.executable, "-S", *words] if words[0] == "-c" else [sys.executable, *words]
    environment = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=opt)
    return done.stdout


if __name__ == "__main__":
    main(str(Path(sys.argv[1]).resolve()))
