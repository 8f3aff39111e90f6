# Everything runs in .venv, which these targets make themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

TRAIN := $(BIN)/python train.py --config configs/nano.py --workdir demo/run \
	--config.train.log_every=4 --config.train.eval_every=0 --config.train.sample_every=0

.PHONY: setup demo test test-all lint clean

setup: $(STAMP)

$(STAMP): setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $(STAMP)

demo: setup
	rm -rf demo
	@echo "== train the nano model for a moment on real photographs"
	$(TRAIN) --config.train.total_steps=16
	@echo "== and resume it"
	$(TRAIN) --config.train.total_steps=24
	@echo "== upscale a photograph with the shipped nano weights"
	$(BIN)/vosr upscale assets/demo/coffee.png -o demo --compare
	@echo "== look at demo/coffee-compare.png: input, bicubic, ours"

test: setup
	$(BIN)/python -m pytest -m "not slow"

test-all: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf demo .pytest_cache .ruff_cache .mypy_cache
