# Two commands do everything for a newcomer: make demo, make test.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
TIER ?= starter
STYLE ?= signature
# Another day each day; each can be had again.
SEED ?= $(shell date +%j)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# A stamp a lock file: make installs again only when the lock changed.
$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Darkroom needs Python 3.11 or newer")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.lock pyproject.toml | $(VENV)/pyvenv.cfg
	@echo "installing into $(VENV) ..."
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	@echo "installing the tools for checks and tests ..."
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/.installed-cluster: requirements-cluster.lock $(VENV)/.installed-dev
	@echo "installing Patroni for the cluster ..."
	@$(PIP) install --require-hashes -r requirements-cluster.lock
	@touch $@

# Their lock is made under ours, so nothing of ours changes version by them.
$(VENV)/.installed-rivals: requirements-rivals.lock $(VENV)/.installed-dev
	@echo "installing the libraries that make bench stands us beside ..."
	@$(PIP) install --require-hashes -r requirements-rivals.lock
	@touch $@

.PHONY: help
help: ## what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.PHONY: demo
demo: $(VENV)/.installed ## one whole order, from payment to photos, then the audit (TIER=premium STYLE=creative)
	@$(BIN)/darkroom demo --tier $(TIER) --style $(STYLE)

.PHONY: demo-full
demo-full: $(VENV)/.installed-dev ## orders through stand-ins of kie.ai, QStash and S3, no worker, under faults (SEED=7)
	@$(BIN)/darkroom rehearse --seed $(SEED) --tier $(TIER) --style $(STYLE)

.PHONY: run
run: $(VENV)/.installed ## API and worker on http://127.0.0.1:8000, everything embedded
	@DARKROOM_MODE=demo $(BIN)/darkroom run

.PHONY: test
test: $(VENV)/.installed-dev ## all tests, on real PostgreSQL (DATABASE_URL uses another server)
	@bash scripts/install-browser.sh
	@bash scripts/install-cluster.sh pgbouncer
	@$(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: torture
torture: $(VENV)/.installed-dev ## three minutes in which everything dies, and the count after it (SEED=7)
	@$(BIN)/darkroom torture --full --seed $(SEED) --orders 200 --minutes 3 --workers 4

.PHONY: money
money: $(VENV)/.installed ## 500 orders, a third of their photos fails, the bank at its worst, everything dies (SEED=7)
	@$(BIN)/darkroom torture --seed $(SEED) --orders 500 --minutes 8 --workers 4 --photos-failed 30

.PHONY: soak
soak: $(VENV)/.installed-dev ## an hour or two: every proof, larger; then ten minutes of torture (SEED=7)
	@CRASH_VISITS=4 MODEL_EXAMPLES=400 MATRIX=full $(BIN)/python -m pytest -n 2 --dist worksteal tests/crash tests/promises
	@$(BIN)/darkroom torture --full --seed $(SEED) --orders 700 --minutes 10 --workers 4

.PHONY: check
check: $(VENV)/.installed-dev ## format, lint, types, imports, migrations, tidiness
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/squawk src/darkroom/db/migrations/*.sql
	@$(BIN)/python -m pytest -q tests/tidy

.PHONY: format
format: $(VENV)/.installed-dev ## put the code into shape
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: flow
flow: $(VENV)/.installed-dev ## print docs/flow.md from core/lifecycle.py
	@$(BIN)/python scripts/print_flow.py > docs/flow.md

.PHONY: lock
lock: $(VENV)/.installed-dev ## renew the lock files: versions and hashes, no addresses
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate pyproject.toml --group build -o requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate pyproject.toml --group build --group dev -o requirements-dev.lock
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate pyproject.toml --group build --group cluster -c requirements-dev.lock -o requirements-cluster.lock
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --group rivals -c requirements-dev.lock -o requirements-rivals.lock

.PHONY: clean
clean: ## remove the virtual environment, the data folder and caches
	@rm -rf $(VENV) .darkroom demo-photos .pytest_cache .ruff_cache .hypothesis

.PHONY: screenshots
screenshots: $(VENV)/.installed-dev ## draw the README's pictures of the pages, in a real browser
	@bash scripts/install-browser.sh
	@$(BIN)/python -m pytest -q "tests/browser/test_the_way.py::test_a_customer_goes_the_whole_way_on_a_phone[en]"
	@$(BIN)/python -m scripts.make_screenshots

.PHONY: pictures
pictures: $(VENV)/.installed ## draw docs/pictures: a contact sheet per style, by the studio as it stands
	@$(BIN)/python -m scripts.make_pictures

.PHONY: examples
examples: $(VENV)/.installed ## draw the bundled brand's example photos, by the studio as it stands
	@$(BIN)/python -m scripts.make_examples

.PHONY: bench
bench: $(VENV)/.installed-rivals ## Darkroom beside the limit of this machine, in one run, as ratios (minutes; an idle machine)
	@$(BIN)/python -W ignore::Warning:platformdirs -m bench

MOST ?= 10000000
.PHONY: bench-scale
bench-scale: $(VENV)/.installed-dev ## the same with a past of 0, 1 and 10 million photos (MOST=1000000 is shorter; an hour, 45 GB)
	@$(BIN)/python -W ignore::Warning:platformdirs -m bench.scale --most $(MOST)

MINUTES ?= 60
.PHONY: bench-memory
bench-memory: $(VENV)/.installed-dev ## the memory of one worker under steady load, as a slope per hour (MINUTES=60)
	@$(BIN)/python -W ignore::Warning:platformdirs -m bench.memory --minutes $(MINUTES)

.PHONY: bench-many
bench-many: $(VENV)/.installed-cluster ## 1, 2, 4 workers; PgBouncer in front; three servers of which the primary dies (REPEATS=3 DEATHS=1 HOW=frozen)
	@bash scripts/install-cluster.sh
	@$(BIN)/python -W ignore::Warning:platformdirs -m bench.many --repeats $(or $(REPEATS),3) --deaths $(or $(DEATHS),1) --how $(or $(HOW),killed)
