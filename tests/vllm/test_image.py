"""The RUN lines of examples/docker/vllm.Dockerfile, with a built wheel, in an environment that has what vLLM's has.

No image is pulled: a venv sees all packages of this one, but for fastload, and pip changes that venv alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

_CHECKOUT = Path(__file__).parents[2]
_HERE = Path(sysconfig.get_path("purelib"))
_BARE = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    folder = tmp_path / "wheel"
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=_CHECKOUT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A venv with the packages of this one by links, without fastload."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for path in _HERE.iterdir():
        if "fastload" not in path.name:
            (packages / path.name).symlink_to(path)
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "image.pth").write_text(f"{packages}\n")
    return tmp_path / "venv" / "bin" / "python"


def _run_line(dockerfile: Path) -> str:
    text = dockerfile.read_text().replace("\\\n", "")
    lines: list[str] = re.findall(r"^RUN (.*)$", text, re.MULTILINE)
    (line,) = lines
    return line


def _run(line: str, python: Path, wheel: Path) -> subprocess.CompletedProcess[str]:
    """The line in a shell; its checkout is the wheel, its Python and pip those of ``python``."""
    assert line.count("/tmp/fastload") == 2
    line = line.replace("/tmp/fastload", str(wheel)).replace("python3 ", f"{python} ")
    line = re.sub(r"\bpip (?=freeze|install|check)", f"{python} -m pip --disable-pip-version-check ", line)
    return subprocess.run(["sh", "-c", line], env=_BARE, capture_output=True, text=True, check=False)


def test_it_adds_fastload_and_changes_nothing(image: Path, wheel: Path) -> None:
    """Torch among it; ``pip check`` has nothing to say of the wheel, and its plugin is found."""
    done = _run(_run_line(_CHECKOUT / "examples/docker/vllm.Dockerfile"), image, wheel)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not wheel.exists()  # the line tidies up
    command = [str(image), "-c", "import fastload; print(fastload.__file__)"]
    where = subprocess.run(command, capture_output=True, text=True, check=True, env=_BARE)
    assert Path(where.stdout.strip()).is_relative_to(image.parents[1])


def test_it_would_notice_that_something_else_changed(image: Path, wheel: Path) -> None:
    (site,) = image.parents[1].glob("lib/python*/site-packages")
    info = site / "other-1.dist-info"
    added = f"mkdir {info}; printf 'Metadata-Version: 2.1\\nName: other\\nVersion: 1\\n' >{info}/METADATA; "
    line = _run_line(_CHECKOUT / "examples/docker/vllm.Dockerfile")
    done = _run(line.replace("after=", f"{added}after="), image, wheel)
    assert (done.returncode, done.stderr) == (1, ""), done.stderr
