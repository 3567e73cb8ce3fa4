# Every target works on a fresh clone with python3 (3.11+), venv and pip.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
OPENCLAW_RELEASES := 2026.2.12 2026.9.6
export UV_PYTHON_DOWNLOADS = never

help:                     ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: .venv/ready        ## make .venv with all that the rest needs

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python3 is older than 3.11: make setup PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

lock:                     ## resolve requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header --extra dev --extra openclaw pyproject.toml -o requirements.lock

lint: setup               ## ruff (lint, format) and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

test: setup               ## unit and integration tests on real Postgres, Valkey and the simulator
	@.ci/test

test-gateways: setup      ## the same on real OpenClaw releases (OPENCLAW=2026.9.6: on one)
	@.ci/test-gateways $(or $(OPENCLAW),$(OPENCLAW_RELEASES))

demo: setup               ## provision a small fleet on a gateway of its own (GATEWAY=openclaw: a real one)
	@$(BIN)/provisioner demo --gateway $(or $(GATEWAY),simulator)

.PHONY: help setup lock lint test test-gateways demo
