# `make` lists the targets. Everything is created inside this folder: .venv, .venv-label-studio, var/, and .python where
# the machine has no Python 3.11, 3.12 or 3.13. PYTHON=/path/to/python3.12 chooses one; TORCH=cpu leaves CUDA out.
VENV := .venv
STUDIO := .venv-label-studio
BIN := $(VENV)/bin
UV := $(BIN)/uv --quiet
export PATH := $(abspath $(BIN)):$(PATH)
# Which PyTorch to install, `locked` or `cpu`: as said, else as it is. Another one than the last is installed at once.
LAST_TORCH := $(shell cat $(VENV)/.torch 2>/dev/null)
TORCH ?= $(or $(LAST_TORCH),locked)
export PYTHON TORCH TORCH_INDEX

.DEFAULT_GOAL := help
.PHONY: help setup demo up down test server-test check format bench results screenshots lock notices clean tools caddy chromium

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: tools $(VENV)/.installed $(STUDIO)/.installed ## Install what is missing (TORCH=cpu: no CUDA); a second run needs no network

demo: setup ## Run two whole rounds of the loop and leave everything running (PHOTOS=… MASKS=… LABELS=… COUNT=… for your own photos)
	@maskloop demo $(if $(PHOTOS),--photos $(PHOTOS)) $(if $(MASKS),--masks $(MASKS)) $(if $(LABELS),--labels $(LABELS)) $(if $(COUNT),--count $(COUNT))

up: setup ## Start the local stack
	@maskloop up

down: ## End the local stack
	@maskloop down

test: setup chromium caddy ## Run all tests: the quick ones side by side, then those with real servers and a real browser
	@pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder --durations=15 tests/unit tests/dags
	@pytest --durations=25 tests/integration tests/e2e tests/server

server-test: setup ## Build the containers, start them, and test the server for real (Docker, half an hour, 60 GB)
	@MASKLOOP_SERVER=$(or $(MASKLOOP_SERVER),new) pytest tests/server

check: setup ## Lint, type-check, and compare imports with declared dependencies
	@ruff check .
	@ruff format --check .
	@mypy
	@deptry pipelines bentos dags
	@deptry benchmarks scripts tests deploy --exclude var --ignore DEP002,DEP004

format: setup ## Format the code
	@ruff check --fix --quiet . || true
	@ruff format .

bench: setup ## Measure every claim, or one with NAME=codec; writes var/bench/*.json
	@python -m benchmarks $(NAME)

results: setup ## Write the measured numbers into docs/results.md
	@python -m benchmarks.results

screenshots: setup chromium ## Take the pictures of README and labelers' guide from the running demo
	@python -m scripts.screenshots

lock: setup ## Resolve requirements/*.txt after a change of pyproject.toml (UPGRADE=1: newest versions)
	@uv pip compile $(LOCK) --extra dev --extra server pyproject.toml -o requirements/maskloop.txt
	@uv pip compile $(LOCK) --constraint requirements/maskloop.txt --extra server pyproject.toml -o requirements/airflow.txt
	@uv pip compile $(LOCK) --constraint requirements/maskloop.txt requirements/serving.in -o requirements/serving.txt
	@uv pip compile $(LOCK) requirements/label-studio.in -o requirements/label-studio.txt
	@uv pip compile $(LOCK) requirements/bootstrap.in -o requirements/bootstrap.txt
	@sed -i "s/ ; $(EVERYWHERE) / /; s/ and $(MACHINE) / /" requirements/*.txt
LOCK := --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links
LOCK += $(if $(UPGRADE),--upgrade)
# Without this package OpenVINO's converter reports its use to nobody; it is not needed for anything else.
LOCK += --no-emit-package openvino-telemetry
# What `environments` of pyproject.toml says is true on every machine that Maskloop supports, so no line has to repeat it;
# and where it is not true, an installation fails instead of installing nothing.
MACHINE := implementation_name == 'cpython' and platform_machine == 'x86_64' and platform_python_implementation == 'CPython' and sys_platform == 'linux'
EVERYWHERE := python_full_version < '3.14' and $(MACHINE)

notices: setup ## Write THIRD-PARTY.md from the licences of what is installed
	@python -m scripts.notices

clean: setup ## End the stack and delete its state, with all labels, datasets and models; environments stay
	@maskloop down
	rm -rf "$(or $(MASKLOOP_VAR),var)"

tools: ## Check that git is there, and say how much is to be downloaded and whether it fits
	@scripts/check-machine

$(VENV)/.bootstrapped: requirements/bootstrap.txt | tools
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { python=$$(scripts/find-python) && echo "Creating $(VENV) with $$python" && "$$python" -m venv $(VENV); }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@touch $@

$(VENV)/.installed: requirements/maskloop.txt pyproject.toml $(if $(filter-out $(LAST_TORCH),$(TORCH)),FORCE) | $(VENV)/.bootstrapped
	@echo "Installing the pipelines ($$(grep -c == requirements/maskloop.txt) packages; some minutes on a slow line)"
	@UV=$(BIN)/uv scripts/sync-packages $(BIN)/python requirements/maskloop.txt $(TORCH) --compile-bytecode
	@$(UV) pip install --python $(BIN)/python --no-deps --no-build-isolation --offline --editable .
	@echo $(TORCH) > $(VENV)/.torch
	@touch $@

$(STUDIO)/.installed: requirements/label-studio.txt | $(VENV)/.bootstrapped
	@echo "Installing Label Studio into $(STUDIO)"
	@test -x $(STUDIO)/bin/python || $(BIN)/python -m venv --without-pip $(STUDIO)
	@UV=$(BIN)/uv scripts/sync-packages $(STUDIO)/bin/python requirements/label-studio.txt locked --compile-bytecode
	@touch $@

FORCE:

caddy: $(VENV)/.installed ## Fetch the web server that the test of the server's entry asks
	@scripts/ensure-caddy

chromium: $(VENV)/.installed ## Install the browser that tests and pictures use
	@scripts/ensure-chromium
