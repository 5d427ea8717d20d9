PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)

.PHONY: help environment demo test test-fast test-contracts test-accelerator lint format notebooks wheel bench clean

help:
	@echo "make demo       train a sampler of the 5x5 Ising model from its energy; results in runs/demo"
	@echo "make environment  what all others make first"
	@echo "make test       all tests"
	@echo "make test-fast  the tests that take seconds"
	@echo "make test-contracts  what all that is registered is held to, and a command"
	@echo "make test-accelerator  the accelerator jax finds against the CPU; without one, its rounding"
	@echo "make lint       style, format and types"
	@echo "make format     mend style and format"
	@echo "make notebooks  run every notebook"
	@echo "make wheel      build a wheel into dist/"
	@echo "make bench      the quick measurements of speed; writes their tables in benchmarks/README.md"

# The environment, made once; again only when pyproject.toml or constraints.txt change.
$(READY):
	@$(PYTHON) -c 'import sys; sys.exit("egmjax needs Python 3.11 or newer, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@start=$$(date +%s) && $(PYTHON) -m venv $(VENV) \
	  && $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]' \
	  && rm -f $(VENV)/.ready-* && touch $@ \
	  && echo "environment: downloaded and installed in $$(( $$(date +%s) - start )) s (not repeated)"

environment: $(READY)

demo: $(READY)
	@start=$$(date +%s) && $(BIN)/python -m benchmarks.train ising --length 5 --beta 0.4 --seed 0 --out runs/demo \
	  $(if $(wildcard runs/demo/config.json),--overwrite) \
	  && echo "demo: $$(( $$(date +%s) - start )) s, installation apart"

test: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

test-fast: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow"

# each path, process, sampler, network and target at least once: where a new jax would show
test-contracts: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow" tests/core/test_contracts.py \
	  tests/core/test_precision.py tests/networks/test_contracts.py tests/training/test_trainer.py \
	  tests/benchmarks/test_train_command.py

test-accelerator: $(READY)
	EGMJAX_TEST_OPTIMIZED=1 $(BIN)/python -m pytest -q -m accelerator

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: $(READY)
	@mkdir -p build/notebooks
	$(BIN)/jupytext --quiet --to ipynb notebooks/*.py
	mv notebooks/*.ipynb build/notebooks/
	$(BIN)/python -m pytest -q -n 2 --nbmake --nbmake-timeout=300 build/notebooks

wheel: $(READY)
	$(BIN)/python -m build --wheel --outdir dist .

bench: $(READY)
	$(BIN)/python -m benchmarks.bench

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
