# What can be done here; `make` alone lists it. Everything runs in a virtual environment, .venv, made when first needed.

# The Python to make it from: 3.10 to 3.13.
PYTHON ?= python3

BIN := .venv/bin
# Twice quiet: errors only.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --quiet --no-input --disable-pip-version-check

.PHONY: help setup demo test networks paper lint clean

help:
	@echo "make setup    make the environment .venv, with what requirements.txt lists"
	@echo "make demo     train a small network on synthetic images, denoise photographs: results/demo.png, in minutes"
	@echo "make test     run the tests"
	@echo "make networks train the networks of networks/ that are missing, from data in datasets/; for hours"
	@echo "make paper    train networks with noisy and with clean targets, to compare them: docs/paper.md; for hours"
	@echo "make lint     check style and formatting"
	@echo "make clean    remove the virtual environment and caches; data sets and results stay"
	@echo "PYTHON=python3.12 after any of them names the Python to use, 3.10 to 3.13."

setup: .venv/installed

demo: .venv/installed
	$(BIN)/python demo.py

# Each process holds a TensorFlow: more than a few do not pay.
test: .venv/installed-dev
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

networks: .venv/installed-dev
	$(BIN)/python networks/make.py

paper: .venv/installed-dev
	$(BIN)/python networks/paper.py

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf .venv .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are touched last: an installation that failed or was interrupted is started over.
.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "error: $(PYTHON) is not Python 3.10 to 3.13; name one that is: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Setting up the environment .venv: a minute or two."
	$(PYTHON) -m venv --clear .venv
	$(PIP_INSTALL) -r requirements.txt
	@touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@
