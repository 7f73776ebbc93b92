# The targets that a newcomer, the tests and a release need. `make help` lists them.

VENV := .venv
PYTHON := $(VENV)/bin/python
ARGS ?=
SECONDS ?= 60
TARGETS ?=
# Seconds for which everything happens to listeners under load, on each database.
CHAOS ?= 120
JGIT ?=
# What the benchmark measures (all), where it writes its figures, and the revision to compare with.
ROWS ?=
JSON ?= .cache/bench.json
REV ?= HEAD~1
LONG ?=
# Tests wait about as much as they work: four at a time keep two cores busy.
WORKERS ?= 4

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench bench-compare bench-pool bench-profile bench-store replay house soak attack fuzz audit clean

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

bench: $(VENV)/test.stamp ## Measure it beside a script and Debian's webhook, some minutes (ROWS=move,ack; JSON=FILE)
	@.ci/setup bench
	@$(PYTHON) -m tests.bench --rows '$(ROWS)' --json $(JSON)

bench-compare: $(VENV)/test.stamp ## Say what changed since a revision: both in turns in one run (REV=main~5)
	@.ci/setup bench
	@rev=$$(git rev-parse --short --verify '$(REV)^{commit}') && tree=.cache/bench/$$rev && \
		{ [ ! -e $$tree ] || git worktree remove --force $$tree; } && \
		git worktree add --quiet --force --detach $$tree $$rev && \
		{ $(PYTHON) -m tests.bench --rows '$(ROWS)' --json $(JSON) --beside '$(REV)'=$$tree; status=$$?; \
		git worktree remove --force $$tree; exit $$status; }

bench-pool: $(VENV)/test.stamp ## Measure what many hosts cost: time and memory, configured and connected
	@$(PYTHON) -m tests.bench.pool

bench-profile: $(VENV)/test.stamp ## Show where the listener's time goes while many sites on one host sync (SITES=1000)
	@$(PYTHON) -m tests.bench.profiled

bench-store: $(VENV)/test.stamp ## Measure what a long past costs the store: 200,000 ended runs, both databases
	@$(PYTHON) -m tests.bench.store

replay: $(VENV)/test.stamp ## Studio's library, JGit, publishing beside the listener (LONG=yes, SECONDS=60 a row, JGIT=DIR for jars)
	@$(PYTHON) -m tests.replay $(if $(LONG),--long) $(if $(JGIT),--jgit $(JGIT)) \
		$(if $(filter-out file,$(origin SECONDS)),--seconds $(SECONDS)) $(ARGS)

house: $(VENV)/test.stamp ## Show the house in figures: rooms, what stands twice, five walks, what a start costs (ARGS=--plan)
	@$(PYTHON) -m tests.house $(ARGS)

soak: $(VENV)/test.stamp ## The long forms, some minutes: publishes beside syncs, everything under load, histories
	@SYNC_STAGING_SOAK=60 SYNC_STAGING_CHAOS=$(CHAOS) SYNC_STAGING_HISTORIES=300 SYNC_STAGING_ORDERS=100 \
		$(PYTHON) -m pytest --timeout $$((900 + 10 * $(CHAOS))) \
		tests/e2e/test_side_by_side.py tests/e2e/test_kill_rounds.py tests/contract/test_histories.py \
		tests/contract/test_store_model.py

attack: $(VENV)/test.stamp ## The attacks, and all that the API's description promises: some thousand requests a caller
	@SYNC_STAGING_ATTACK=150 $(PYTHON) -m pytest -n $(WORKERS) --timeout 3600 tests/attack tests/e2e/test_schemathesis.py

fuzz: $(VENV)/test.stamp ## Fuzz verifiers, parsers and HTTP, led by coverage (SECONDS=60 for each; TARGETS=http)
	@$(PYTHON) -c 'import atheris' 2>/dev/null || \
		$(PYTHON) -m pip install --quiet --disable-pip-version-check --only-binary atheris --require-hashes -r requirements/fuzz.txt || true
	@$(PYTHON) -m tests.fuzz --seconds $(SECONDS) $(TARGETS)

audit: $(VENV)/audit/bin/pip-audit ## Ask the internet which pinned releases have known weaknesses
	@for each in run postgres build test; do \
		$< --progress-spinner off --require-hashes --disable-pip -r requirements/$$each.txt || exit; done

$(VENV)/audit/bin/pip-audit: requirements/audit.txt
	@python3 -m venv $(VENV)/audit
	@$(VENV)/audit/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

clean: ## Remove what the targets made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# A .venv whose Python has gone, after an upgrade of the system say, is made anew whatever its stamps say.
ifneq ($(shell test -x $(PYTHON) && echo there),there)
.PHONY: $(VENV)/run.stamp $(VENV)/test.stamp
endif

$(VENV)/run.stamp: pyproject.toml $(wildcard requirements/*.txt) .ci/setup
	@.ci/setup run

$(VENV)/test.stamp: pyproject.toml $(wildcard requirements/*.txt) .ci/setup
	@.ci/setup test
