# Everything runs in .venv, which these targets make themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SHELL := bash
.SHELLFLAGS := -o pipefail -c

# Shown are the steps; the rest lies in demo/train.log.
TRAIN := $(BIN)/python train.py --config configs/nano_direct.py --workdir demo/run \
	--config.train.log_every=4 --config.train.eval_every=0 --config.train.sample_every=0 \
	--config.optimizer.decay_steps=24 --config.optimizer.warmup_steps=4
STEPS := 2>&1 | tee -a demo/train.log | grep --line-buffered -E '^(step|error)'

.PHONY: setup demo test test-slow test-all lint docs clean

setup: $(STAMP)

$(STAMP): setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $(STAMP)

demo: setup
	@rm -rf demo && mkdir demo
	@echo "== train the nano model for a moment on real photographs (a minute)"
	@$(TRAIN) --config.train.total_steps=16 $(STEPS)
	@echo "== and resume it"
	@$(TRAIN) --config.train.total_steps=24 $(STEPS)
	@echo "== upscale two photographs, a clean and a damaged one, with the shipped nano weights"
	@$(BIN)/vosr upscale assets/demo/coffee.png assets/demo/dragonfly.jpg -o demo --compare
	@echo "== look at demo/*-compare.png: input, bicubic, ours"

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

# They stop and kill processes by the clock, so one that fails beside another is run once more.
test-slow: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow --reruns 1 --durations=25

test-all: test test-slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	$(BIN)/python docs/architecture.py
	$(BIN)/mkdocs build --strict

clean:
	rm -rf demo site .pytest_cache .ruff_cache .mypy_cache
