# make demo: install, run the pipeline on the sample shop.   make test: install, lint, types, tests.
ENV ?= .venv
BIN = $(ENV)/bin

.PHONY: setup demo test check lint types tests test-operations tiny-vlm

setup:
	@sh setup/install.sh $(ENV)

demo: setup
	@$(BIN)/dmesr demo

test: check

check: lint types tests

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

# Four processes on two cores: many tests wait for servers and engines that they start.
tests: setup
	$(BIN)/pytest -n 4

# Whole nights on real servers, killed in the middle, and on PostgreSQL; the walk-through. Many minutes on 2 cores.
test-operations: setup
	$(BIN)/pytest tests/flows tests/docs tests/tasks -m operations

# Trains the sample shop's own vision-language model again (about an hour on 2 cores).
tiny-vlm: setup
	$(BIN)/python -m sample_shop.tiny_vlm.train
