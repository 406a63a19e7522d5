PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Each process has servers of its own; a file of tests stays in one.
IN_PARALLEL := --numprocesses 2 --dist loadfile
INSTALLED := $(VENV)/.installed
SERVING := $(VENV)/.serving
DOCUMENTING := $(VENV)/.documenting
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help install serve tests tests-all docs crash-test attack bench bench-quick lint format clean

help:
	@echo "make serve      run Kinto with this plugin on 127.0.0.1:8888, or with PORT=8889 on another port"
	@echo "make tests      run the tests"
	@echo "make tests-all  run the slow ones too"
	@echo "make docs       build the documentation: build/docs/index.html"
	@echo "make crash-test kill servers 50 times for each storage"
	@echo "make attack     hold 120 silent connections on each route, for a minute"
	@echo "make bench      measure everything, beside what else there is;  make bench-quick"
	@echo "make lint       check the style;  make format  to mend it"
	@echo "make clean      remove what the others made, but for the records and files in var/"

install: $(INSTALLED)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): setup.cfg pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable ".[s3,gcs,pyramid-storage,serve,docs,dev]"
	touch $@ $(SERVING) $(DOCUMENTING)

$(SERVING): setup.cfg pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable ".[serve]"
	touch $@

$(DOCUMENTING): setup.cfg pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable ".[docs]"
	touch $@

serve: $(SERVING)
	$(BIN)/python scripts/serve.py

tests: $(INSTALLED) lint
	$(BIN)/python -m pytest $(IN_PARALLEL)

tests-all: $(INSTALLED) lint
	$(BIN)/python -m pytest $(IN_PARALLEL) -m "slow or not slow"

docs: $(DOCUMENTING)
	$(BIN)/python -m sphinx --fail-on-warning --nitpicky --fresh-env --quiet docs build/docs
	@echo "Open build/docs/index.html"

crash-test: $(INSTALLED)
	CRASH_TEST_KILLS=50 $(BIN)/python -m pytest -m "slow or not slow" tests/system/test_crash.py

attack: $(INSTALLED)
	ATTACK_SECONDS=60 ATTACK_REQUESTS=2000 $(BIN)/python -m pytest -s --timeout 600 -m "slow or not slow" \
		tests/system/test_attack.py tests/system/test_aborted.py

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks --plots docs

bench-quick: $(INSTALLED)
	$(BIN)/python -m benchmarks --quick

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
