# Every target sets up its own virtual environment in .venv; nothing else on the machine is touched,
# except that the embedded model (98 MB) is kept in the user's data directory.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Python compiles what it imports by itself; to compile all that is installed takes longer than all the rest.
INSTALL := $(PIP) install --require-hashes --only-binary=:all: --no-deps --no-compile

# Where Python may not keep its bytecode, every process that a test starts compiles every module anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test .check .tests clients fix reliability mutants bench screenshots sql lock clean

run: .venv/.run .venv/.model
	$(BIN)/python examples/python_client.py
	$(BIN)/modelway serve

# `make test THOROUGH=1`, which CI runs, adds the slow tests (tests/conftest.py lists their files), four times as
# many random inputs, and the coverage. It needs the SDKs and the embedded model, which take longer to unpack than
# the quick tests to run.
# The checks wait for nothing, the tests for processes: side by side they fill the machine.
test: $(if $(THOROUGH),.venv/.dev .venv/.model,.venv/.test)
	@$(MAKE) --no-print-directory --jobs=2 .check .tests

.check:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry .

.tests:
	$(BIN)/pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder \
		$(if $(THOROUGH),--hypothesis-profile=thorough --cov --cov-report=term:skip-covered -m "not long",-m "not slow and not long")

# The programs that people already have, as clients; docs/clients.md names them. They get an environment of their
# own, in .clients: they agree with each other about the versions of what they need, but not with requirements/dev.txt.
# How they close what they open is their own, and so are the warnings.
clients: .clients/.python .clients/.node
	PATH="$(CURDIR)/.clients/python/bin:$(CURDIR)/.clients/node/node_modules/.bin:$$PATH" \
		.clients/python/bin/pytest -p no:asyncio -W ignore -m clients tests/clients

fix: .venv/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Forty-four things that have to hold, with the tests that take an hour; writes docs/reliability.md.
reliability: .venv/.dev .venv/.model
	$(BIN)/python -m tests.reliability.report

# Small mistakes in the code, which the tests are to notice: so many at random of thousands; writes docs/mutants.md.
SAMPLE ?= 200
SEED ?= 1
mutants: .venv/.mutants
	$(BIN)/python -m tests.mutation --sample $(SAMPLE) --seed $(SEED)

bench: .venv/.dev
	$(BIN)/modelway bench compare

# The pictures of docs/page.md; it needs Chromium.
screenshots: .venv/.dev
	$(BIN)/python -m tests.page.screenshots

# After a change of the store's schema or statements.
sql: .venv/.test
	$(BIN)/python -m modelway.conversations.composing

lock: .venv/.dev
	$(BIN)/python requirements/lock.py

clean:
	rm -rf .venv .clients build dist mutants

.venv/.python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Modelway needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	touch $@

.venv/.run: requirements/run.txt pyproject.toml .venv/.python
	$(INSTALL) -r requirements/run.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

.venv/.test: requirements/test.txt pyproject.toml .venv/.python
	$(INSTALL) -r requirements/test.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

.venv/.dev: requirements/dev.txt pyproject.toml .venv/.python
	$(INSTALL) -r requirements/dev.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

.venv/.mutants: requirements/mutants.txt .venv/.test
	$(INSTALL) -r requirements/mutants.txt
	touch $@

.clients/.python: requirements/clients.txt pyproject.toml
	$(PYTHON) -m venv .clients/python
	.clients/python/bin/python -m pip --disable-pip-version-check --quiet install \
		--require-hashes --only-binary=:all: --no-deps --no-compile -r requirements/clients.txt
	.clients/python/bin/python -m pip --disable-pip-version-check --quiet install \
		--no-deps --no-build-isolation --editable .
	.clients/python/bin/modelway models pull smollm2
	touch $@

# Without Node the half that needs it fails, and the other half is run all the same. No package's own script is
# run but the one that puts Claude Code's program in its place.
.clients/.node: tests/clients/node/package.json tests/clients/node/package-lock.json
	@mkdir -p .clients/node
	cp $^ .clients/node
	@if command -v npm >/dev/null; then \
		npm ci --prefix .clients/node --ignore-scripts --no-audit --no-fund --loglevel=error && \
		(cd .clients/node/node_modules/@anthropic-ai/claude-code && node install.cjs) && touch $@; \
	else echo 'Node.js 20 or newer with npm is not installed: the programs in Node will fail' >&2; fi

# The model's own download shows its progress; without the engine's wheel nothing could use it.
.venv/.model: | .venv/.python
	@test -x $(BIN)/modelway || $(MAKE) .venv/.run
	$(BIN)/modelway models pull smollm2
	touch $@
