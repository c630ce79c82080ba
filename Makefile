# `make demo` runs the main job on real input, `make test` runs the tests; both start from a fresh clone.
PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check install --quiet
JOBS   ?= 2

NATIVE := CMakeLists.txt pyproject.toml python/visionrt/_fastpath.pyx \
          $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cmake')
CXX_FILES = $(shell find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format kernels stubs bench clean

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.tools: Makefile pyproject.toml tools/dev/check_system.py
	@$(PYTHON) tools/dev/check_system.py
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "Installing the build tools into $(VENV)"
	@$(PIP) --upgrade 'pip>=24' setuptools 'scikit-build-core>=0.11' 'pybind11==3.1.0' 'cython>=3.0.11' 'numpy>=1.26' 'cmake>=3.25' 'ninja>=1.11'
	@$(PY) tools/dev/nvcc.py --path >/dev/null || { \
	  echo "No CUDA toolkit here: installing nvcc from PyPI"; \
	  $(PIP) 'nvidia-cuda-nvcc==13.*' 'nvidia-cuda-runtime==13.*' 'nvidia-cuda-cccl==13.*'; }
	@touch $@

$(VENV)/.installed: $(VENV)/.tools $(NATIVE)
	@echo "Building the extension and installing trtconvert with everything the tests and the demo use"
	@PATH="$(abspath $(VENV))/bin:$$PATH" $(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@

install: $(VENV)/.installed  ## build and install into .venv, editable

demo: install  ## build engines from real models, run them on photos, draw what they see
	@$(PY) tools/dev/demo.py --output demo-output

# The emulated GPU runs real PyCUDA, which takes two minutes to build; the wheel is kept for all
# environments of this user. Where it cannot be built, its tests are skipped, with the reason.
$(VENV)/.pycuda: $(VENV)/.installed tools/dev/install_pycuda.py tools/dev/cuda_headers.py
	@rm -f $@.problem
	@if $(PY) -c 'import pycuda' 2>/dev/null || \
	  $(PY) tools/dev/install_pycuda.py --wheel-only >/dev/null 2>$@.log; then touch $@; else \
	  sed -n 's/^PyCUDA was not installed: //p' $@.log >$@.problem; \
	  test -s $@.problem || tail -n 1 $@.log >$@.problem; \
	  echo "PyCUDA cannot be built ($@.log): tests on the emulated GPU will be skipped"; fi

test: install $(VENV)/.pycuda  ## run every test that this machine can run
	@VISIONRT_NO_PYCUDA="$$(cat $(VENV)/.pycuda.problem 2>/dev/null)" \
	  $(PY) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

lint: install  ## ruff, mypy --strict, clang-format
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/clang-format --dry-run --Werror $(CXX_FILES)

format: install  ## let ruff and clang-format rewrite the files
	@$(VENV)/bin/ruff check --fix-only .
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/clang-format -i $(CXX_FILES)

kernels: install  ## compile the CUDA kernels for every architecture and check their budgets
	@$(PY) tools/dev/kernels.py

stubs: install  ## regenerate python/visionrt/_core.pyi
	@$(PY) tools/dev/stubs.py

bench: install  ## run the quick benchmarks
	@$(PY) benchmarks/run.py --json benchmarks/results/cpu.json

clean:  ## remove everything that was built
	rm -rf $(VENV) build demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find python tools tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f python/visionrt/*.so
