# The one way to do each thing. `make run` and `make test` need Python 3.11 and nothing else.
# CONFIG=experiments/… chooses another experiment; CORES=4 limits the cores.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3.11
CONFIG ?= config.yaml
CORES ?= all
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.locked
TORCH := $(shell sed -n 's/^torch==/torch==/p' requirements.lock)
# Nothing may ask a hub unless the experiment needs one: `make run OFFLINE=0`.
OFFLINE ?= 1
export HF_HUB_OFFLINE := $(OFFLINE)
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help env run report test lint format bench gpu lock clean

help:  ## show this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

env: $(STAMP)  ## make the virtual environment from requirements.lock

# torch first and with its own dependencies: where it is a CUDA build, they are the CUDA libraries,
# which a lock for every machine cannot name. Everything else is pinned and takes no dependencies.
$(STAMP): requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH) --constraint requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -r requirements.lock
	touch "$@"

run: env  ## run the experiment: figures, score table and report
	@snakemake --cores $(CORES) --configfile $(CONFIG)
	@$(MAKE) --no-print-directory report CONFIG=$(CONFIG)

report: env
	@python scripts/make_report.py --config $(CONFIG)

test: env  ## run all tests
	python -m pytest

lint: env  ## check style, types and the workflow
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow
	snakemake --lint --configfile experiments/tiny.yaml

format: env
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

bench: env  ## time the kernels side by side; CSV under results/benchmarks
	PYTHONPATH="$(CURDIR)" python benchmarks/run_kernels.py --output results/benchmarks

# Needs python3 with torch, triton, numba, h5py and pytest only; no environment is made.
gpu:  ## CUDA tests and benchmarks with the python3 at hand
	python3 -m pytest -p no:cacheprovider -m cuda tests/ops tests/fit/test_ksvd.py
	PYTHONPATH="$(CURDIR)" python3 benchmarks/run_kernels.py --device cuda --output $${OUT:-results/benchmarks}

lock:  ## resolve requirements.in anew (needs uv)
	uv pip compile --python-version 3.11 --no-annotate --no-header \
	  --override requirements.overrides requirements.in \
	  | grep -vE '^(nvidia-|cuda-|triton==)' > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:  ## remove results of the default experiment
	rm -rf results/minilm
