# The targets that a newcomer, the tests and a release need. `make help` lists them.

VENV := .venv
PYTHON := $(VENV)/bin/python
ARGS ?=
# Tests wait more than they work: three at a time keep two cores busy.
WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench bench-hosts soak clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 13

demo: $(VENV)/run.stamp ## Show it at work: sshd, a repository, a signed webhook, a POST, a replay
	@$(PYTHON) -m listener demo

test: $(VENV)/test.stamp lint ## Lint, then run every test (ARGS="-k name" for some)
	@$(PYTHON) -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(VENV)/test.stamp ## Check form, rules and types
	@$(PYTHON) -m ruff format --check --quiet .
	@$(PYTHON) -m ruff check --quiet .
	@$(PYTHON) -m mypy

format: $(VENV)/test.stamp ## Put the code into form
	@$(PYTHON) -m ruff format .
	@$(PYTHON) -m ruff check --fix .

bench: $(VENV)/test.stamp ## Measure the way from webhook to moved ref, in ratios
	@$(PYTHON) -m tests.bench

bench-hosts: $(VENV)/test.stamp ## Measure what many hosts cost: time and memory, configured and connected
	@$(PYTHON) -m tests.bench_hosts

soak: $(VENV)/test.stamp ## The long forms, some minutes: publishes beside syncs, kills under load, histories
	@SYNC_STAGING_SOAK=60 SYNC_STAGING_HISTORIES=300 $(PYTHON) -m pytest --timeout 900 \
		tests/e2e/test_side_by_side.py tests/e2e/test_kill_rounds.py tests/contract/test_histories.py

clean: ## Remove what the targets made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# A .venv whose Python has gone, after an upgrade of the system say, is made anew whatever its stamps say.
ifneq ($(shell test -x $(PYTHON) && echo there),there)
.PHONY: $(VENV)/run.stamp $(VENV)/test.stamp
endif

$(VENV)/run.stamp: pyproject.toml constraints.txt .ci/setup
	@.ci/setup run

$(VENV)/test.stamp: pyproject.toml constraints.txt .ci/setup
	@.ci/setup test
