# SPDX-License-Identifier: Apache-2.0
# Every target does its own set-up; see `make help`. Set-up speaks on standard error, so that
# `make demo ARGS="--json"` prints nothing but JSON.

SHELL := /bin/bash
VENV := .venv
PYTHON := /usr/bin/python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := python3-bpfcc python3-venv libbpf1 linux-libc-dev iproute2 util-linux tmux groff-base
# What ebpftop is measured beside, and what makes the traffic for it.
BENCH_PACKAGES := xdp-tools nftables iftop btop bpftool wrk nginx-light
SOURCES := ebpftop tests

.PHONY: help setup demo run test check format lint types contracts bench bench-long recording
.PHONY: shots lock clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

bench bench-long: PACKAGES += $(BENCH_PACKAGES)

setup: packages $(STAMP) ## install what is missing: distribution packages and .venv

.PHONY: packages
packages:
	@missing=; for package in $(PACKAGES); do \
	  dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" != 0 ]; then echo "missing packages, install them as root:$$missing" >&2; exit 1; fi; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  { apt-get update -q && apt-get install -y -q --no-install-recommends $$missing; } >&2; \
	fi

$(STAMP): pyproject.toml requirements.lock | packages
	@echo "installing into $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV) >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . >&2
	@touch $@

demo: setup ## the main job on this machine; ARGS="--for 8 --json" prints a report
	@$(BIN)/ebpftop demo $(ARGS)

run: setup ## the dashboard; IFACE=eth0
	@$(BIN)/ebpftop $(IFACE) $(ARGS)

# A file's tests stay in one process: many share a lab. Each lab is of its own network namespaces.
test: setup ## all tests; ARGS go to pytest
	$(BIN)/python -m pytest -q $(or $(ARGS),--numprocesses 2 --dist loadfile)

check: setup format lint types contracts test ## what CI runs

format: setup
	$(BIN)/ruff format --check $(SOURCES)

lint: setup
	$(BIN)/ruff check $(SOURCES)

types: setup
	$(BIN)/mypy

contracts: setup
	$(BIN)/lint-imports

recording: setup ## record the lab into tests/data/, for the tests and the pictures
	$(BIN)/python -m tests.record_lab

shots: setup ## draw the panes on the recording of the lab into screenshots/
	$(BIN)/python -m tests.shots screenshots

bench: setup ## measure, beside other tools, in ten minutes; ARGS="--only NAME", ARGS=--list
	$(BIN)/python -m tests.bench $(or $(ARGS),--write .)

bench-long: setup ## watch the dashboard beside other tools for an hour
	$(BIN)/python -m tests.bench --effort long $(ARGS)

lock: setup ## choose the newest versions that pyproject.toml allows
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --no-header --extra dev --generate-hashes \
	  --python-version 3.11 --output-file requirements.lock --upgrade pyproject.toml

clean: ## remove what set-up made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
