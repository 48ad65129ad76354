# Needs make and Python >= 3.11; everything else comes into .venv at the versions in constraints.txt.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# The peers that the benchmark compares with live apart from what we ship and test.
BENCH  := .build/bench

# An active environment, user site packages or a foreign PYTHONPATH must not change what we install or test.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH CONDA_PREFIX
export PYTHONNOUSERSITE := 1
# pip trusts the system's certificates; uv has its own, which know no company proxy.
export UV_SYSTEM_CERTS := $(if $(wildcard /etc/ssl/certs/*.crt /etc/ssl/cert.pem /etc/pki/tls/certs/*),1,0)

PROJECTS  := $(wildcard packages/*/pyproject.toml)
MYPY_DIRS := $(wildcard packages/*/src packages/*/tests tests conftest.py examples benchmarks)

.DEFAULT_GOAL := help
.PHONY: help setup model demo test check fmt quality bench soak clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: model ## Make .venv with all packages and tools, fetch the embedded model

$(BIN)/uv: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'Python >= 3.11 is needed, and $(PYTHON) is not. Try: make setup PYTHON=/path/to/python3.11' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@touch $@

$(STAMP): $(BIN)/uv $(PROJECTS) constraints.txt requirements-dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -b constraints.txt \
	  -e 'packages/snakepit[opentelemetry]' -e 'packages/snakepit-grpc-bridge[dspy,embedded,secrets,storage,postgres]' \
	  -e 'packages/dspex[embedded]' \
	  -r requirements-dev.txt
	@touch $@

# No stamp: the weights are in the user's data folder, which .venv knows nothing of. Quick when they are there.
model: $(STAMP) ## Fetch the weights of the embedded model, once a user
	@$(BIN)/dspex model install

demo: model ## The tour: all three layers, live
	@$(BIN)/dspex demo

test: model ## All tests, in two processes but for a few; ARGS=-x goes to pytest
	@$(BIN)/python -m pytest -q -m alone $(ARGS)
	@$(BIN)/python -m pytest -q -m "not alone" --numprocesses 2 --dist loadfile $(ARGS)

check: $(STAMP) ## Format, lint, types, layer rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(MYPY_DIRS)
	$(BIN)/lint-imports

fmt: $(STAMP) ## Format the code and apply safe lint fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quality: model ## How well the embedded model answers the labelled set
	$(BIN)/python -m benchmarks.quality

$(BENCH)/.installed: $(BIN)/uv $(PROJECTS) benchmarks/requirements.txt constraints.txt
	$(BIN)/uv venv --quiet --allow-existing --python $(PYTHON) $(BENCH)
	$(BIN)/uv pip install --quiet --python $(BENCH)/bin/python -c constraints.txt -b constraints.txt \
	  -e 'packages/snakepit[opentelemetry]' -e 'packages/snakepit-grpc-bridge[dspy,storage]' \
	  -r benchmarks/requirements.txt
	@touch $@

bench: $(BENCH)/.installed ## The pool, its peers and the limit; then state. ARGS=--quick: two minutes
	@$(BENCH)/bin/python -m benchmarks.pool $(ARGS)
	@$(BENCH)/bin/python -m benchmarks.state $(filter --quick,$(ARGS))

soak: $(STAMP) ## An hour of calls, deaths and recycling; SOAK_SECONDS=600 for ten minutes
	@# Without the runner's own copy of the log, which would grow for an hour.
	@$(BIN)/python -m pytest -q -s -m soak -o faulthandler_timeout=0 -p no:logging

clean: ## Remove .venv and all caches
	rm -rf $(VENV) $(BENCH) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
