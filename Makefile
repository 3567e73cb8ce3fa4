# Every target works on a fresh clone with python3 (3.11+), venv and pip.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
OPENCLAW_RELEASES := 2026.2.12 2026.3.13 2026.9.6
SMOKE_RELEASES := 2026.2.12 2026.9.6
export UV_PYTHON_DOWNLOADS = never
# Where it is set, each of some hundred processes of the tests would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

help:                     ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: .venv/ready        ## make .venv with all that the rest needs

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python3 is older than 3.11: make setup PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-annotate --no-header

lock:                     ## resolve requirements.lock and requirements-image.lock anew from pyproject.toml
	$(COMPILE) --extra dev --extra lab --extra openclaw pyproject.toml -o requirements.lock
	$(COMPILE) --constraints requirements.lock pyproject.toml -o requirements-image.lock

lint: setup               ## ruff (lint, format), mypy --strict, and the layers that imports keep to
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

test: setup               ## unit and integration tests on real Postgres, Valkey and the simulator
	@.ci/test

test-lab: setup           ## the gateways' suites on the simulator, worker processes killed and stopped, services, worker/lab
	@.ci/test lab

smoke: setup              ## one agent's life on the oldest and the newest real OpenClaw; about 1 min a release
	@.ci/smoke $(or $(OPENCLAW),$(SMOKE_RELEASES))

test-gateways: setup      ## all that a real OpenClaw can show, on three releases (OPENCLAW=2026.9.6: on one)
	@.ci/test-gateways $(or $(OPENCLAW),$(OPENCLAW_RELEASES))

chaos: setup             ## break all that can break, and look for losses (SEED=n, ONLY=words, FULL=1: all of it, in parts)
	@$(BIN)/python -m tests.chaos

chaos-tables: setup      ## write into docs/reliability.md what make chaos has seen on this machine
	@$(BIN)/python -m tests.chaos.record

demo: setup               ## provision and sync a small fleet on a gateway of its own (GATEWAY=openclaw: a real one)
	@$(BIN)/provisioner demo --gateway $(or $(GATEWAY),simulator)

bench: setup              ## the product beside the least that can be done (OPENCLAW=2026.9.6: on it; WRITE=1: to docs)
	@$(BIN)/python -m tests.benchmarks $(if $(OPENCLAW),--target openclaw:$(OPENCLAW)) $(if $(WRITE),--write)

.PHONY: help setup lock lint test test-lab smoke test-gateways chaos chaos-tables demo bench
