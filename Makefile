# The one way to do each thing. `make run` and `make test` need Python 3.11 and nothing else.
# CONFIG=experiments/… chooses another experiment; CORES=4 limits the cores.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3.11
CONFIG ?= config.yaml
EXPERIMENT ?= $(CONFIG)
CORES ?= all
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.locked
TORCH := $(shell sed -n 's/^torch==/torch==/p' requirements.lock)
# Nothing may ask a hub unless the experiment needs one: `make run OFFLINE=0`.
OFFLINE ?= 1
export HF_HUB_OFFLINE := $(OFFLINE)
export PATH := $(CURDIR)/$(BIN):$(PATH)
# The command of this clone, whichever is installed.
DBKSVD := PYTHONPATH="$(CURDIR)" python -m dbksvd.command.main

.PHONY: help env run report estimate explain test test-fast fuzz lint docs notebooks settings readme format bench bench-memory soak gpu ranges dist lock clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

env: $(STAMP)  ## make the virtual environment from requirements.lock

# torch first and with its own dependencies: where it is a CUDA build, they are the CUDA libraries,
# which a lock for every machine cannot name. Everything else is pinned and takes no dependencies.
# A CUDA build brings its own Triton; the tests of the kernels need one on a CPU too.
$(STAMP): requirements.lock tests/requirements.txt tests/requirements-triton.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH) --constraint requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -r tests/requirements.txt
	$(BIN)/python -c "import triton" 2> /dev/null \
	  || $(BIN)/python -m pip install --quiet --no-deps -r tests/requirements-triton.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch "$@"

run: env  ## run the experiment: figures, score table and report
	@$(DBKSVD) run $(CONFIG) --cores $(CORES)

report: env
	@$(DBKSVD) report $(CONFIG)

estimate: env  ## what EXPERIMENT=experiments/… would cost: hours, disk, memory; nothing is run
	@$(DBKSVD) estimate $(EXPERIMENT)

# The text as it was typed: make would read a $ in it.
override export TEXT := $(value TEXT)
explain: env  ## which atoms fire on TEXT="…", for the dictionaries of CONFIG that have pages
	@$(DBKSVD) explain --config $(CONFIG) -- "$$TEXT"

# Files side by side, one thread each; tests of one file stay together and share what they made.
# The order is that of the collection, which puts files that run real jobs first.
TEST_JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 python -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder
test: env  ## run all tests
	$(PYTEST)

test-fast: env  ## run the tests that take seconds: no real jobs of Snakemake, none marked slow
	$(PYTEST) -m "not runs_snakemake and not slow"

fuzz: env  ## run all property tests on many random examples; takes long
	OMP_NUM_THREADS=1 python -m pytest -m hypothesis --hypothesis-profile=fuzz

lint: env  ## check style, types and the workflow
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow
	snakemake --lint --configfile experiments/tiny.yaml

notebooks: env  ## run the notebooks of docs/ anew, and keep what they print
	PYTHONPATH="$(CURDIR)" python -m workflow.notebooks

# What builds the pages comes without dependencies too, so that nothing of the lock moves.
PAGES := $(VENV)/.pages
$(PAGES): docs/requirements.txt $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps -r docs/requirements.txt
	touch "$@"

docs: $(PAGES)  ## build docs/ as a site in build/docs; fails on a broken link
	python -m workflow.numbers --check
	NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict

settings: env  ## write docs/settings.md and the JSON schema of configs from the code
	python -m workflow.reference

readme: env  ## write README's table, and the numbers in docs, from the finished run of CONFIG
	python -m workflow.readme --config $(CONFIG)
	python -m workflow.numbers

format: env
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

# Peers are for the benchmarks only; without their dependencies nothing of the lock moves.
PEERS := $(VENV)/.peers
$(PEERS): benchmarks/requirements.txt $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps -r benchmarks/requirements.txt
	touch "$@"

BENCH := results/benchmarks
bench: $(PEERS)  ## time against peers: tables and targets in results/benchmarks (30 minutes)
	snakemake --cores $(CORES) results/minilm/layer4/shards/manifest.json
	snakemake results/smollm2/model/SmolLM2-135M-Instruct.Q4_1.json --cores $(CORES) \
	  --configfile experiments/smollm2.yaml
	PYTHONPATH="$(CURDIR)" python benchmarks/run_coding.py --output $(BENCH)
	PYTHONPATH="$(CURDIR)" python benchmarks/run_fit.py --output $(BENCH)
	PYTHONPATH="$(CURDIR)" python benchmarks/run_learning.py --output $(BENCH)
	PYTHONPATH="$(CURDIR)" python benchmarks/run_scaling.py --output $(BENCH)
	PYTHONPATH="$(CURDIR)" python benchmarks/run_kernels.py --output $(BENCH)
	PYTHONPATH="$(CURDIR)" python benchmarks/run_switch.py --output $(BENCH) --threads 1
	PYTHONPATH="$(CURDIR)" python benchmarks/run_ranks.py --output $(BENCH)
	PYTHONPATH="$(CURDIR)" python benchmarks/run_disk.py --output $(BENCH)
	PYTHONPATH="$(CURDIR)" python benchmarks/run_extraction.py --output $(BENCH)
	PYTHONPATH="$(CURDIR)" python benchmarks/print_targets.py --output $(BENCH)

bench-memory: env  ## peak memory of a fit on 10 million samples (35 GB of disk, 15 minutes)
	PYTHONPATH="$(CURDIR)" python benchmarks/run_memory.py --output $(BENCH)
	PYTHONPATH="$(CURDIR)" python benchmarks/print_targets.py --output $(BENCH)

soak: env  ## SIGKILL stages and Snakemake 30 times over the tiny experiment (15 minutes)
	PYTHONPATH="$(CURDIR)" python benchmarks/run_soak.py --output $(BENCH)

# No environment is made; the python3 needs torch, triton, numba, numpy, scipy, h5py, safetensors,
# pandas, pydantic, jaxtyping, wrapt, tqdm, scikit-learn, hypothesis and pytest. Without sae-lens,
# sae-bench or transformers, what needs them is left out.
gpu:  ## CUDA tests, benchmarks and whole fits with the python3 at hand (8 minutes at most)
	PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" python3 benchmarks/run_gpu.py --output $${OUT:-$(BENCH)}

# Environments of their own, in build/ranges: torch of other versions is large where it has CUDA.
ranges:  ## test the core at both ends of its ranges of Python, torch and NumPy (30 minutes, 15 GB)
	$(PYTHON) tests/helpers/ranges.py

dist: env  ## build sdist and wheel in dist/, and check them as an index would
	rm -rf dist
	python -m build --no-isolation
	python -m twine check --strict dist/*

# The resolver alone is not in the lock: nothing else needs it.
lock: env  ## resolve requirements.in anew, into requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps uv==0.13.8
	uv pip compile --python-version 3.11 --no-annotate --no-header \
	  --override requirements.overrides requirements.in \
	  | grep -vE '^(nvidia-|cuda-|triton==)' > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:  ## remove the results of CONFIG
	@$(DBKSVD) clean $(CONFIG) --yes
