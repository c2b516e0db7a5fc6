# Everything runs in a virtual environment of its own, made on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
REQUIRE_BROKERS := $(if $(CI),--require-brokers,)
# Of its own, as it has pandas; one for each CPython that it is run with.
TRUTH = .venv-truth-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
FAST := tests/unit tests/benchmarks tests/documentation tests/truth tests/zoo tests/telemetry tests/grafana tests/semconv
# More processes than cores, as most of what takes long is waiting for a worker. A test at a time:
# tests/worker comes first, and what computes fills the gaps.
PROCESSES ?= 6
# Where it is set each process that a test starts, hundreds of them, compiles all of this anew.
export PYTHONDONTWRITEBYTECODE :=
SPREAD = --numprocesses=$(PROCESSES) --dist=load --maxschedchunk=1 --durations=10

.PHONY: demo test test-long unit view-tests package stack tools pictures bundle bench instructions soak truth zoo lint types check-docs docs docs-site view-picture dashboards semconv \
  lowest matrix hostile peers clean

# With what the demo needs, unless all is here that developers need.
DEMO_VENV := $(if $(wildcard $(STAMP)),$(VENV),.venv-demo)
demo: $(DEMO_VENV)/installed  ## The main job on embedded defaults, about 30 seconds; ARGS=--view leaves its page open
	@$(DEMO_VENV)/bin/python -m demo $(ARGS)

test: $(STAMP)  ## Unit, telemetry, dashboard, worker and hostile tests
	$(BIN)/python -m pytest tests/worker tests/hostile tests/otel tests/examples $(FAST) -m "not long" $(SPREAD) $(REQUIRE_BROKERS) $(ARGS)

test-long: $(STAMP)  ## The tests that take minutes each: a soak, Collectors in trouble, many runs
	$(BIN)/python -m pytest tests/worker tests/hostile tests/examples $(FAST) -m long $(SPREAD) $(REQUIRE_BROKERS) $(ARGS)

unit: $(STAMP)  ## The fast tests alone
	$(BIN)/python -m pytest $(FAST) -m "not long" --numprocesses=logical --durations=10 $(ARGS)

package: $(STAMP)  ## Build sdist and wheel, check them, and run the wheel in an empty environment
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m pytest tests/package $(ARGS)

view-tests: $(STAMP) docs-site  ## The page of `otel-celery-memory view`, and the site, in a real browser (needs Chromium)
	$(BIN)/python -m pytest tests/view --durations=5 $(ARGS)

stack: $(STAMP)  ## Real workers, Collector, Prometheus, VictoriaLogs, Jaeger, Alertmanager
	$(BIN)/python -m pytest tests/stack $(ARGS)

tools: $(STAMP)  ## Build the Go programs that `make stack` runs, unless they are in the cache
	$(BIN)/python -m tests.stack.collector_build
	$(BIN)/python -m tests.stack.go_build

pictures: $(STAMP)  ## Run the stack's scenario and draw its dashboards into docs/
	$(BIN)/python -m pytest tests/stack/test_production.py --save-panels $(VENV)/panels.json $(ARGS)
	$(BIN)/python -m docs.pictures $(VENV)/panels.json

bench:  ## What it costs beside everything else, in under ten minutes; ARGS="--full" for all, "--json FILE"
	@$(MAKE) --no-print-directory .venv-bench/installed
	.venv-bench/bin/python -m benchmarks $(ARGS)

instructions: $(STAMP)  ## Instructions that measuring a run takes, by callgrind (needs valgrind)
	$(BIN)/python -m benchmarks.instructions $(ARGS)

soak: $(STAMP)  ## 100,000 tasks under kills, outages and full pipes; ARGS="--tasks 3000" for less
	$(BIN)/python -m soak $(ARGS)
	$(BIN)/python -m soak.frames

# Applications beside the repository, each with an answer in tests/truth/shared_cases.py; skipped where
# they are not there.
SHARED ?= ../shared/cases

truth:  ## What a person would conclude from real workers, case by case; PYTHON=python3.13 for another
	@$(MAKE) --no-print-directory $(TRUTH)/installed
	$(TRUTH)/bin/python -m tests.truth --shared $(SHARED) $(ARGS)

zoo:  ## What verdicts say of every leak that somebody died of; ARGS="--case cache --mix mixed" for less
	@$(MAKE) --no-print-directory $(TRUTH)/installed
	$(TRUTH)/bin/python -m tests.zoo $(ARGS)

lint: $(STAMP)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

check-docs: $(STAMP)  ## Whether pages, dashboards and registry say what the code says
	$(BIN)/python -m docs.tables
	$(BIN)/python -m grafana
	$(BIN)/python -m semconv

docs: $(STAMP)  ## Write the site's reference tables again from conventions.py, settings.py and parsers
	$(BIN)/python -m docs.tables --write

# Not --quiet: warnings that are not logged are not counted by --strict.
docs-site: .venv-docs/installed  ## Build the documentation into site/; links and anchors are checked
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --clean

view-picture: $(STAMP)  ## Take the picture of the README anew, from a real worker that leaks (minutes)
	$(BIN)/python -m pytest tests/view/test_tutorial.py --write-picture $(ARGS)

dashboards: $(STAMP)  ## Write dashboards, rules and alerts again from grafana/*.py
	$(BIN)/python -m grafana --write

bundle: $(STAMP)  ## Rules, dashboards and runbooks as one archive in dist/, as a mixin
	$(BIN)/python -m grafana.bundle $(ARGS)

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
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,browser,config,examples]'
	# Not beside the rest: where it is on the path, it changes what opentelemetry-instrument does.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --target $(VENV)/distro 'opentelemetry-distro>=0.59b0'
	@touch $@

.venv-demo/installed: pyproject.toml
	@$(PYTHON) demo/installation.py $(@D)
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

# One contender at a time: where one cannot be installed the others are still measured, and why/ has
# the reason for the table.
.venv-bench/installed: pyproject.toml benchmarks/contenders.txt
	$(PYTHON) -m venv .venv-bench
	mkdir -p .venv-bench/why
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[truth]'
	@grep -v '^#' benchmarks/contenders.txt | while read -r each; do \
	  name=$$(printf %s "$$each" | sed 's/[<>=].*//'); \
	  .venv-bench/bin/python -m pip install --quiet --disable-pip-version-check "$$each" \
	    >.venv-bench/why/$$name 2>&1 || { echo "not installed: $$each"; cat .venv-bench/why/$$name; }; \
	done
	@touch $@

.venv-docs/installed: pyproject.toml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check '.[docs]'
	@touch $@

.venv-peers/installed: pyproject.toml peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check \
	  --editable . --requirement peers/requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) .venv-demo .venv-lowest .venv-truth-* .venv-peers .venv-docs .venv-bench site
