# Every target sets up what it needs: a fresh Debian with Rust, Python 3.11+, make and root is enough.
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python

SECONDS ?= 60
TESTS ?= --tests

.DEFAULT_GOAL := help
.PHONY: help setup demo bench test test-rust test-python test-long test-kernel fuzz sanitize aarch64 soak mutants lint format clean

help: ## Print what each target does
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install system packages and a virtual environment, build the wheel and install it
	@scripts/setup

demo: setup ## Show the five policy options enforced on real packets in network namespaces
	@$(VENV)/bin/labelgate demo

test: setup lint test-rust test-python test-kernel ## Run every check and test (root: network namespaces)

test-rust: setup ## Run the tests of the core
	cargo test --quiet --workspace

test-python: setup ## Run the Python tests: resources, reference, engine, cases
	$(PY) -m pytest tests/python -n 2 --dist worksteal
	$(PY) -m pytest --doctest-modules --pyargs labelgate

test-long: setup ## Compare engine and reference on more than 200,000 random (resource set, packet) pairs, and diff with brute force
	LABELGATE_WORLDS=3400 $(PY) -m pytest tests/python/test_engine_equals_reference.py
	LABELGATE_WORLDS=300 $(PY) -m pytest tests/python/test_diff.py -k every_change --timeout 3600

test-kernel: setup ## Run the tests that send real packets through real rules (root)
	$(PY) -m pytest tests/kernel -n 3 --dist worksteal

fuzz: setup ## Fuzz every parser for SECONDS each (default 60); fail if anything does not hold
	@scripts/setup-fuzz
	@$(PY) tests/fuzz/run.py --seconds $(SECONDS)

sanitize: setup ## Run the tests of the engines and of the core under the address sanitizer
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=target/sanitize \
	  cargo test --quiet --target $$(rustc -vV | sed -n 's/^host: //p') --lib --test engines

aarch64: ## Build the core for aarch64 and run its tests there, by QEMU (TESTS='--test engines')
	@scripts/setup-aarch64
	CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
	CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER='qemu-aarch64 -R 0x8000000000 -L /usr/aarch64-linux-gnu' \
	  cargo test --quiet --locked --profile fuzz --target aarch64-unknown-linux-gnu $(TESTS)

soak: setup ## Ten minutes of traffic, reloads and pods that come and go, then a flood (OPTIONS='--seconds 60 --backend legacy')
	$(PY) tests/soak/run.py $(OPTIONS)

mutants: setup ## Seed deliberate faults, one at a time: a case must catch each (OPTIONS='--only ID')
	$(PY) tests/mutants/run.py $(OPTIONS)

bench: setup ## Measure what takes a minute or two each, from answers a second to diff (root); fail below what is promised
	$(PY) benches/answers.py --least 20000
	$(PY) benches/boundary.py
	$(PY) -m pytest -q -p pytest_benchmark.plugin benches/calls.py
	$(PY) benches/live.py
	$(PY) benches/sessions.py --connections 20000
	$(PY) benches/replay.py --least 1000000
	$(PY) benches/expectations.py --least 1000
	$(PY) benches/lint.py
	$(PY) benches/diff.py
	$(PY) benches/reach.py --least 1000000
	$(PY) benches/suggest.py --least 5000

lint: setup ## Check format, lints and types
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings
	cargo clippy --quiet --features python -- -D warnings
	$(VENV)/bin/ruff format --check python tests
	$(VENV)/bin/ruff check python tests
	$(VENV)/bin/mypy
	$(PY) -m mypy.stubtest labelgate._core

format: setup ## Format the sources
	cargo fmt --all
	$(VENV)/bin/ruff format python tests
	$(VENV)/bin/ruff check --fix python tests

clean: ## Remove build products and the virtual environment
	rm -rf target $(VENV) dist
