# `make` prints what there is. Everything runs in .venv, from versions pinned by requirements.lock.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Participants of the former library, for the tests: they need versions that we cannot have beside ours.
OLD_STAMP := .venv-old/.installed
OLD_LOCK := tests/old_participants/requirements.lock
# What `make bench-peers` measures, each in an environment of its own.
PEER_LOCKS := $(patsubst %.in,%.lock,$(wildcard benchmarks/peers/*.in))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The official AsyncAPI parser, renderer and diff, run by the node that the lock brings.
NODE_MODULES := tools/asyncapi/node_modules
NODE_STAMP := $(NODE_MODULES)/.installed
# What the docs sites serve to browsers.
ASYNCAPI_UI := build/asyncapi-ui
UI_STAMP := $(ASYNCAPI_UI)/.copied
# The application runs without it, too; then its docs pages say what to run.
PAGES = $(MAKE) --no-print-directory asyncapi NPM_FLAGS=--fetch-retries=0 || \
	echo "==> no npm packages: the docs pages will show nothing but a link to their documents" >&2

# The resolver that writes the lock; nothing else needs it.
UV_VERSION := 0.13.8
UV := .venv-lock/bin/uv

QUICK_TESTS := tests/unit tests/simulation tests/contract
# Those that keep a core busy. The others, which wait for servers, begin when they have ended.
BUSY_TESTS := tests/unit tests/simulation
# To which the files of tests are handed; 0: none but the one that is asked.
TEST_PROCESSES ?= 2
PYTEST := $(BIN)/python -m pytest --dist=loadfile --no-loadscope-reorder $(PYTEST_FLAGS)
# Whatever the first part says the second one runs, too. That one part has no such test (5) is no failure.
RUN_TESTS = busy=0 others=0; \
	$(PYTEST) --numprocesses=$(TEST_PROCESSES) $(BUSY_TESTS) || busy=$$?; \
	$(PYTEST) --numprocesses=$(TEST_PROCESSES) $(1) || others=$$?; \
	case "$$busy $$others" in "0 0" | "0 5" | "5 0") ;; *) exit 1 ;; esac

.PHONY: help
help: ## Print this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(STAMP) ## Run the whole application in one process: SQLite and a broker in memory
	@$(PAGES)
	@$(BIN)/python -m app_common.demo

.PHONY: local
local: $(STAMP) ## Run the whole application as one process per service, on RabbitMQ and PostgreSQL
	@$(PAGES)
	@$(BIN)/python -m app_common.local

.PHONY: check
check: static ## Format, lint, types, imports and the quick tests: run it before a commit
	@echo "==> tests: $(QUICK_TESTS)"
	@$(call RUN_TESTS,$(filter-out $(BUSY_TESTS),$(QUICK_TESTS)))

.PHONY: test
test: static asyncapi $(OLD_STAMP) ## Everything: what `make check` does, with every test
	@echo "==> tests: all"
	@$(call RUN_TESTS,tests $(addprefix --ignore=,$(BUSY_TESTS)))

.PHONY: crash-matrix
crash-matrix: $(STAMP) ## Break something at every named point, on real servers (CELLS='batch_*:kill': only these)
	@CELLS='$(CELLS)' $(BIN)/python -m tests.stress.matrix

.PHONY: bench
bench: $(STAMP) ## Measure our own sagas on real servers (BENCH='plain --rounds 1': less of it)
	@$(BIN)/python -m benchmarks.ours $(BENCH)

.PHONY: bench-peers
bench-peers: $(STAMP) ## Measure saga-framework 0.1, Celery, DBOS and Restate beside ours, in the same way
	@$(BIN)/python -m benchmarks.peers $(BENCH)

.PHONY: browser
browser: ## Install a browser for the tests of the pages, where there is none (Debian, as root)
	@command -v chromium chromium-browser google-chrome >/dev/null || { \
		command -v apt-get >/dev/null || { echo "Install chromium: the tests of the pages need it" >&2; exit 1; }; \
		echo "==> installing chromium"; \
		apt-get update --quiet=2 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 \
			--no-install-recommends chromium fonts-dejavu-core >/dev/null; }

.PHONY: asyncapi
asyncapi: $(UI_STAMP) ## Install what checks AsyncAPI documents and what their pages are drawn with

.PHONY: pictures
pictures: $(STAMP) ## Take the pictures of the documentation anew, from a real browser
	@$(BIN)/python -m tools.pictures

.PHONY: trace
trace: $(STAMP) ## Draw the trace of an order that is undone anew, from its spans
	@$(BIN)/python -m tools.traces

.PHONY: docs
docs: $(STAMP) ## Write the generated parts of the pages anew: diagrams and tables of sagas
	@$(BIN)/python -m tools.generated

.PHONY: contracts
contracts: $(NODE_STAMP) ## Write the AsyncAPI documents anew, and say what breaks who is of the last release
	@$(BIN)/python -m tools.contracts

.PHONY: contracts-released
contracts-released: $(NODE_STAMP) ## The same, and keep them as those of the last release: when a release is made
	@$(BIN)/python -m tools.contracts --released

.PHONY: static
static: $(STAMP)
	@echo "==> format"
	@$(BIN)/ruff format --check --quiet . || { echo "Run: make format" >&2; exit 1; }
	@echo "==> lint"
	@$(BIN)/ruff check --quiet .
	@echo "==> types"
	@$(BIN)/mypy
	@echo "==> imports"
	@$(BIN)/lint-imports --no-logo

.PHONY: format
format: $(STAMP) ## Format the code and apply the safe fixes
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

.PHONY: lock
lock: $(UV) ## Write all locks anew, ours from pyproject.toml (LOCK_FLAGS=--upgrade: newest versions)
	@$(UV) pip compile pyproject.toml --quiet --all-extras --group dev \
		--universal --python-version 3.11 --generate-hashes \
		--no-header --no-emit-index-url --no-emit-find-links $(LOCK_FLAGS) \
		--output-file requirements.lock
	@$(UV) pip compile tests/old_participants/requirements.in --quiet \
		--universal --python-version 3.11 --generate-hashes \
		--no-header --no-emit-index-url --no-emit-find-links $(LOCK_FLAGS) \
		--output-file $(OLD_LOCK)
	@for peer in $(PEER_LOCKS); do $(UV) pip compile $${peer%.lock}.in --quiet \
		--universal --python-version 3.11 --generate-hashes \
		--no-header --no-emit-index-url --no-emit-find-links $(LOCK_FLAGS) \
		--output-file $$peer; done
	@PATH="$(CURDIR)/$(BIN):$$PATH" npm install --prefix tools/asyncapi --package-lock-only --ignore-scripts \
		--omit-lockfile-registry-resolved --no-audit --no-fund --loglevel=error >/dev/null
	@echo "requirements.lock, $(OLD_LOCK), $(PEER_LOCKS) and that of tools/asyncapi are up to date"

.PHONY: clean
clean: ## Remove the environment, builds and caches
	@rm -rf .venv .venv-lock .venv-old $(NODE_MODULES) build dist *.egg-info
	@rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -not -path "*/node_modules/*" -type d -prune -exec rm -rf {} +

# Two stamps: a changed lock makes the environment anew, a changed pyproject.toml only reinstalls us.
$(STAMP): .venv/.locked pyproject.toml
	@echo "==> installing sagas_framework, editable"
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.locked: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1 || true)" >&2; \
		echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test ! -L .venv || { echo ".venv is a link to $$(readlink .venv), which would be emptied: remove the link" >&2; exit 1; }
	@echo "==> creating .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear .venv
	@echo "==> installing the locked dependencies (a minute or so, once)"
	@$(PIP) --require-hashes --requirement requirements.lock
	@touch $@

$(OLD_STAMP): $(OLD_LOCK) | $(STAMP)
	@echo "==> installing the former library into .venv-old (half a minute, once)"
	@$(BIN)/python -m venv --clear .venv-old
	@.venv-old/bin/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes --requirement $(OLD_LOCK)
	@touch $@

# Scripts of packages do not run, and what is installed is what the lock's hashes say, from any registry.
$(NODE_STAMP): tools/asyncapi/package.json tools/asyncapi/package-lock.json | $(STAMP)
	@echo "==> installing the AsyncAPI tools (a quarter of a minute, once)"
	@PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --prefix tools/asyncapi --ignore-scripts --no-audit --no-fund --loglevel=error \
		$(NPM_FLAGS) >/dev/null
	@touch $@

$(UI_STAMP): $(NODE_STAMP)
	@mkdir -p $(ASYNCAPI_UI)
	@cd $(NODE_MODULES)/@asyncapi/react-component && \
		cp LICENSE browser/standalone/index.js browser/standalone/index.js.LICENSE.txt styles/default.min.css \
			"$(CURDIR)/$(ASYNCAPI_UI)"
	@touch $@

$(UV):
	@$(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
