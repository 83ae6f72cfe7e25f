# `make` lists the targets. Everything is created inside this folder: .venv, .venv-label-studio, var/.
PYTHON ?= python3.11
VENV := .venv
STUDIO := .venv-label-studio
BIN := $(VENV)/bin
UV := $(BIN)/uv --quiet
export PATH := $(abspath $(BIN)):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo up down test server-test check format bench results screenshots lock clean tools chromium

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: tools $(VENV)/.installed $(STUDIO)/.installed ## Install what is missing; a second run does nothing and needs no network

demo: setup ## Run two whole rounds of the loop and leave everything running (PHOTOS=… MASKS=… LABELS=… COUNT=… for your own photos)
	@maskloop demo $(if $(PHOTOS),--photos $(PHOTOS)) $(if $(MASKS),--masks $(MASKS)) $(if $(LABELS),--labels $(LABELS)) $(if $(COUNT),--count $(COUNT))

up: setup ## Start the local stack
	@maskloop up

down: ## End the local stack
	@maskloop down

test: setup chromium ## Run all tests, with real servers and a real browser
	@pytest

server-test: setup ## Build the containers, start them, and test the server for real (Docker, half an hour, 60 GB)
	@MASKLOOP_SERVER=$(or $(MASKLOOP_SERVER),new) pytest tests/server

check: setup ## Lint and type-check
	@ruff check .
	@ruff format --check .
	@mypy

format: setup ## Format the code
	@ruff check --fix --quiet . || true
	@ruff format .

bench: setup ## Measure every claim, or one with NAME=codec; writes var/bench/*.json
	@python -m benchmarks $(NAME)

results: setup ## Write the measured figures into docs/results.md
	@python -m benchmarks.results

screenshots: setup chromium ## Take the pictures of README and labelers' guide from the running demo
	@python -m scripts.screenshots

lock: setup ## Resolve requirements/*.txt anew
	@uv pip compile --quiet --upgrade $(LOCK) --extra dev --extra server pyproject.toml -o requirements/maskloop.txt
	@uv pip compile --quiet $(LOCK) --constraint requirements/maskloop.txt --extra server pyproject.toml -o requirements/airflow.txt
	@uv pip compile --quiet $(LOCK) --constraint requirements/maskloop.txt requirements/serving.in -o requirements/serving.txt
	@uv pip compile --quiet --upgrade $(LOCK) requirements/label-studio.in -o requirements/label-studio.txt
	@uv pip compile --quiet --upgrade $(LOCK) requirements/bootstrap.in -o requirements/bootstrap.txt
LOCK := --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links
# Without this package OpenVINO's converter reports its use to nobody; it is not needed for anything else.
LOCK += --no-emit-package openvino-telemetry

clean: setup ## End the stack and delete its state, with all labels, datasets and models; environments stay
	@maskloop down
	rm -rf "$(or $(MASKLOOP_VAR),var)"

tools: ## Check that git and Python are there
	@command -v git >/dev/null || { echo "git is missing: sudo apt-get install git"; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: sudo apt-get install python3.11 python3.11-venv (or PYTHON=/path/to/python3.11)"; exit 1; }
	@$(PYTHON) -c "import ensurepip" 2>/dev/null || { echo "$(PYTHON) has no venv: sudo apt-get install python3.11-venv"; exit 1; }

$(VENV)/.bootstrapped: requirements/bootstrap.txt
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@touch $@

$(VENV)/.installed: requirements/maskloop.txt pyproject.toml | $(VENV)/.bootstrapped
	@echo "Installing the pipelines ($$(grep -c == requirements/maskloop.txt) packages, about 7 GB; some minutes on a slow line)"
	@$(UV) pip sync --compile-bytecode --python $(BIN)/python requirements/maskloop.txt
	@$(UV) pip install --python $(BIN)/python --no-deps --no-build-isolation --offline --editable .
	@touch $@

$(STUDIO)/.installed: requirements/label-studio.txt | $(VENV)/.bootstrapped
	@echo "Installing Label Studio into $(STUDIO)"
	@test -x $(STUDIO)/bin/python || $(PYTHON) -m venv --without-pip $(STUDIO)
	@$(UV) pip sync --compile-bytecode --python $(STUDIO)/bin/python requirements/label-studio.txt
	@touch $@

chromium: $(VENV)/.installed ## Install the browser that tests and pictures use
	@scripts/ensure-chromium
