# Two commands for a newcomer: `make demo` and `make test`. Each makes .venv first, once.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PYTEST := $(BIN)/pytest -q -n 2 --dist loadfile

.PHONY: demo test test-all fuzz check docs bench mutants wheel clean help

help:
	@echo "make demo      train on a real texture, find drawn defects, write a picture sheet to demo/"
	@echo "make test      run the tests, on two cores"
	@echo "make test-all  run the tests, the slow ones too"
	@echo "make fuzz      look for inputs that break it, for hours"
	@echo "make check     lint, format and type checks"
	@echo "make docs      build the pages into build/site/; a broken link is an error"
	@echo "make bench     CPU microbenchmarks, written to bench/results/"
	@echo "make mutants   break kernels and training line by line and see the tests fail"
	@echo "make wheel     build the wheel into dist/"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt setuptools
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/fmrnet demo --out demo

test: $(READY)
	$(PYTEST) -m "not slow"

test-all: $(READY)
	$(PYTEST)

fuzz: $(READY)
	FUZZ=long $(BIN)/pytest -q tests/fuzz

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/check
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --target build/check .
	cd build/check && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p fmrnet

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[bench]'
	$(BIN)/python bench/run.py
	$(BIN)/python bench/plot.py

mutants: $(READY)
	$(BIN)/python bench/mutants.py

wheel: $(READY)
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean:
	rm -rf .venv build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
