# Everything runs in a virtual environment of its own, made on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
REQUIRE_BROKERS := $(if $(CI),--require-brokers,)
# Of its own, as it has pandas; one for each CPython that it is run with.
TRUTH = .venv-truth-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
FAST := tests/unit tests/truth tests/telemetry tests/grafana tests/semconv
# More processes than cores, as most of what takes long is waiting for a worker. A test at a time:
# tests/worker comes first, and what computes fills the gaps.
PROCESSES ?= 6
# Where it is set each process that a test starts, hundreds of them, compiles all of this anew.
export PYTHONDONTWRITEBYTECODE :=
SPREAD = --numprocesses=$(PROCESSES) --dist=load --maxschedchunk=1 --durations=10

.PHONY: demo test test-long unit stack tools pictures bench instructions soak truth lint types check-docs docs dashboards semconv \
  lowest matrix hostile peers clean

demo: $(STAMP)  ## The main job on embedded defaults, about 30 seconds
	@$(BIN)/python -m demo $(ARGS)

test: $(STAMP)  ## Unit, telemetry, dashboard, worker and hostile tests
	$(BIN)/python -m pytest tests/worker tests/hostile $(FAST) -m "not long" $(SPREAD) $(REQUIRE_BROKERS) $(ARGS)

test-long: $(STAMP)  ## The tests that take minutes each: a soak, Collectors in trouble, many runs
	$(BIN)/python -m pytest tests/worker tests/hostile $(FAST) -m long $(SPREAD) $(REQUIRE_BROKERS) $(ARGS)

unit: $(STAMP)  ## The fast tests alone
	$(BIN)/python -m pytest $(FAST) -m "not long" --numprocesses=logical --durations=10 $(ARGS)

stack: $(STAMP)  ## Real workers, Collector, Prometheus, VictoriaLogs, Jaeger, Alertmanager
	$(BIN)/python -m pytest tests/stack $(ARGS)

tools: $(STAMP)  ## Build the Go programs that `make stack` runs, unless they are in the cache
	$(BIN)/python -m tests.stack.collector_build
	$(BIN)/python -m tests.stack.go_build

pictures: $(STAMP)  ## Run the stack's scenario and draw its dashboards into docs/
	$(BIN)/python -m pytest tests/stack/test_production.py --save-panels $(VENV)/panels.json $(ARGS)
	$(BIN)/python -m docs.pictures $(VENV)/panels.json

bench: $(STAMP)  ## What it costs, as ratios within one run
	$(BIN)/python -m benchmarks

instructions: $(STAMP)  ## Instructions that measuring a run takes, by callgrind (needs valgrind)
	$(BIN)/python -m benchmarks.instructions $(ARGS)

soak: $(STAMP)  ## 100,000 tasks under kills, outages and full pipes; ARGS="--tasks 3000" for less
	$(BIN)/python -m soak $(ARGS)
	$(BIN)/python -m soak.frames

truth:  ## What a person would conclude from real workers, case by case; PYTHON=python3.13 for another
	@$(MAKE) --no-print-directory $(TRUTH)/installed
	$(TRUTH)/bin/python -m tests.truth $(ARGS)

lint: $(STAMP)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

check-docs: $(STAMP)  ## Whether README, dashboards and registry say what the code says
	$(BIN)/python -m docs.tables
	$(BIN)/python -m grafana
	$(BIN)/python -m semconv

docs: $(STAMP)  ## Write the README's tables again from conventions.py and settings.py
	$(BIN)/python -m docs.tables --write

dashboards: $(STAMP)  ## Write dashboards, rules and alerts again from grafana/*.py
	$(BIN)/python -m grafana --write

semconv: $(STAMP)  ## Write the registry of semantic conventions again from conventions.py
	$(BIN)/python -m semconv --write

lowest: .venv-lowest/installed  ## The tests against the lowest dependencies that pyproject.toml allows
	.venv-lowest/bin/python -m pytest tests/worker tests/unit tests/telemetry -m "not long" \
	  $(SPREAD) $(REQUIRE_BROKERS) $(ARGS)

matrix: $(STAMP)  ## The fast tests on every CPython here with each Celery and OpenTelemetry (long)
	$(BIN)/python -m matrix $(ARGS)

hostile: $(STAMP)  ## Tasks that no one should write, in workers with us and without us, compared
	$(BIN)/python -m pytest tests/hostile $(SPREAD) $(REQUIRE_BROKERS) $(ARGS)

peers: .venv-peers/installed  ## Before a release: the suites of Celery and of its instrumentation, with and without us (long)
	.venv-peers/bin/python -m peers $(ARGS)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.venv-truth-%/installed: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[truth]'
	@touch $@

.venv-lowest/installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check \
	  --editable '.[dev]' --constraint constraints-lowest.txt
	@touch $@

.venv-peers/installed: pyproject.toml peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check \
	  --editable . --requirement peers/requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) .venv-lowest .venv-truth-* .venv-peers
