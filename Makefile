# Every target that needs Python depends on $(READY): it makes .venv when absent and installs
# again only when requirements.lock changed.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
# The first interpreter that runs and that Hydra 1.3 and Lightning 2.6 support.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$p && break; done)

.DEFAULT_GOAL := help
.PHONY: help setup train test test-kernels test-slow test-long test-gpu lint types docs docs-site lock clean

help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock
	@test -n "$(PYTHON)" || { echo "marginface needs Python 3.11, 3.12 or 3.13 with venv; set PYTHON=/path/to/python" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing requirements.lock into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: $(READY) ## make .venv from requirements.lock

train: $(READY) ## train X2-Softmax on synthetic faces and verify on unseen identities (minutes, CPU or GPU)
	$(BIN)/python train.py

KERNELS := tests/classifier/kernels

test: $(READY) ## run the tests, two at a time (5 to 7 minutes on 2 cores)
	$(BIN)/python -m pytest -m "not slow and not long and not gpu" -n 2 --dist worksteal
	TRITON_INTERPRET=1 $(BIN)/python -m pytest $(KERNELS) -n 2 --dist worksteal

test-kernels: $(READY) ## run those of the GPU kernels that need no GPU: interpreted and compiled
	TRITON_INTERPRET=1 $(BIN)/python -m pytest $(KERNELS) -n 2 --dist worksteal
	$(BIN)/python -m pytest $(KERNELS)/test_compiled.py -m "not slow" -n 2 --dist worksteal

test-slow: $(READY) ## run the tests that take minutes each
	$(BIN)/python -m pytest -m "slow and not long and not gpu" --timeout=2400 -n 2 --dist worksteal

test-long: $(READY) ## run the tests that .ci/run has no time for
	$(BIN)/python -m pytest -m long --timeout=2400

# With GPU_PYTHON nothing is set up: that interpreter has torch for the GPU and pytest.
GPU_PYTHON ?= $(BIN)/python
test-gpu: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),$(READY)) ## run the tests that need an NVIDIA GPU
	PYTHONPATH=src:$$PYTHONPATH $(GPU_PYTHON) -m pytest -o addopts="--import-mode=importlib -q" -m gpu \
		$$($(GPU_PYTHON) -c 'import xdist; print("-n 8 --dist worksteal")' 2>/dev/null)

lint: $(READY) ## check style, spelling and which part imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports

types: $(READY) ## check types
	$(BIN)/mypy

docs: $(READY) ## write docs/heads.md and its pictures from the code
	$(BIN)/marginface heads page docs

docs-site: $(READY) ## build the documentation site in site/, broken links are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lock: ## write requirements.lock from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --custom-compile-command "make lock" --quiet -o requirements.lock

clean: ## remove caches and .venv; logs/ stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist site
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
