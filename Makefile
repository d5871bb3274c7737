# Each target sets up what it needs. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# tests side by side: most of their time is waiting
WORKERS ?= 4

.DEFAULT_GOAL := help
.PHONY: help setup lock demo test bench check lint types imports format clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

$(BIN)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or later is needed: make PYTHON=/path/to/python3"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --compile-bytecode --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@$(BIN)/python -m compileall -q drawbar producers processors consumers schemas
	@touch $@

setup: $(BIN)/.ready ## Make .venv with everything that is needed, as pinned

lock: setup ## Pin the dependencies anew after a change of pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.10 --no-emit-index-url --no-emit-find-links --no-header --extra dev --extra otel pyproject.toml -o requirements.lock

demo: setup ## Start everything on this machine, show changes crossing, and compare both systems at the end
	@$(BIN)/drawbar demo

lint: setup ## Lint, and the form of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## Types (mypy)
	$(BIN)/mypy

imports: setup ## Which package may import which
	$(BIN)/lint-imports

check: lint types imports ## Lint, types and import rules

test: check ## Everything that stands between a change and main: checks and tests, on a real Apache Kafka
	$(BIN)/pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder

bench: setup ## Measure speed, latency and memory, about 6 minutes; ONLY=decide: one measurement
	@$(BIN)/python -m tests.bench $(ONLY)

format: setup ## Put the code into the agreed form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove what was made here
	rm -rf $(VENV) .drawbar .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
