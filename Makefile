# Everything runs in a virtual environment of its own, made on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
REQUIRE_REDIS := $(if $(CI),--require-redis,)

.PHONY: demo test unit stack bench lint types check-docs docs lowest clean

demo: $(STAMP)  ## The main job on embedded defaults, about 30 seconds
	@$(BIN)/python -m demo $(ARGS)

test: $(STAMP)  ## Unit, telemetry and worker tests
	$(BIN)/python -m pytest tests/unit tests/telemetry tests/worker $(REQUIRE_REDIS) $(ARGS)

unit: $(STAMP)  ## The fast tests alone
	$(BIN)/python -m pytest tests/unit tests/telemetry $(ARGS)

stack: $(STAMP)  ## Real worker, real Collector, real Prometheus (needs Go, redis-server, prometheus)
	$(BIN)/python -m pytest tests/stack $(ARGS)

bench: $(STAMP)  ## What it costs, as ratios within one run
	$(BIN)/python -m benchmarks

lint: $(STAMP)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

check-docs: $(STAMP)  ## Whether the README says what the code says
	$(BIN)/python -m docs.tables

docs: $(STAMP)  ## Write the README's tables again from conventions.py and settings.py
	$(BIN)/python -m docs.tables --write

lowest: .venv-lowest/installed  ## The tests against the lowest dependencies that pyproject.toml allows
	.venv-lowest/bin/python -m pytest tests/unit tests/telemetry tests/worker $(REQUIRE_REDIS) $(ARGS)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.venv-lowest/installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check \
	  --editable '.[dev]' --constraint constraints-lowest.txt
	@touch $@

clean:
	rm -rf $(VENV) .venv-lowest
