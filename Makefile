# `make` alone lists the targets. Everything runs in the virtual environment .venv, which is made when first needed.

# The Python that the environment is made from: 3.11 to 3.13.
PYTHON ?= python3

BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
# --quiet twice: print errors only.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --quiet --no-input --disable-pip-version-check

.PHONY: help setup demo test networks paper lint clean

help:
	@echo "make setup    make the environment .venv and install the project there, in place"
	@echo "make demo     train a small network on synthetic images and denoise photographs: results/demo.png; takes minutes"
	@echo "make test     run the tests"
	@echo "make networks train the networks missing from networks/ on the data in datasets/; takes hours"
	@echo "make paper    compare training with noisy and with clean targets: docs/paper.md; takes hours"
	@echo "make lint     check style, formatting and types"
	@echo "make clean    remove the virtual environment and caches; keep data sets and results"
	@echo "Add PYTHON=python3.12 to choose the Python version, 3.11 to 3.13."

setup: .venv/installed

demo: .venv/installed
	$(BIN)/python demo.py

# Each process imports TensorFlow, so more than a few are not faster.
test: .venv/installed-dev
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

networks: .venv/installed-dev
	$(BIN)/python networks/make.py

paper: .venv/installed-dev
	$(BIN)/python networks/paper.py

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	for system in linux darwin win32; do $(BIN)/mypy --platform $$system || exit 1; done

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Touch the stamps last, so that a failed or interrupted installation is repeated.
.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "error: $(PYTHON) is not Python 3.11 to 3.13; name one that is: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Setting up the environment .venv: a minute or two."
	$(PYTHON) -m venv --clear .venv
	$(PIP_INSTALL) --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@
