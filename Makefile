# Everything a newcomer needs; `make` alone explains itself.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help demo test nightly lint fmt doc bench fidelity

# Where the set-up put the servers and, if need be, the test runner.
ENVIRONMENT = . "$$(tests/set-up/install.sh env)"

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

demo: ## back up, lose and restore a real database, on this machine
	@tests/set-up/install.sh build mariadb
	$(ENVIRONMENT)
	cargo build --locked --workspace --bins
	packaging/demo.sh

test: ## set up everything, then every check and every test
	@tests/set-up/install.sh all
	$(ENVIRONMENT)
	step() { local started=$$SECONDS; echo "test: $$*"; "$$@"; echo "test: $$1 $$2 took $$((SECONDS - started)) s"; }
	step cargo fmt --all --check
	step cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" step cargo doc --locked --workspace --no-deps
	step cargo nextest run --locked --workspace
	echo "test: everything passed in $$SECONDS s"

nightly: ## long matrices and more lots: 200 target points, 200 kills of restores, each odd setting alone, 2000 simulated stories
	@tests/set-up/install.sh build mariadb mariadb118 mysql
	$(ENVIRONMENT)
	HOLDFAST_POINTS=200 HOLDFAST_KILLS=200 HOLDFAST_SETTINGS=each \
		cargo nextest run --locked --profile nightly -p holdfast-tests -E 'test(/points::/) + test(/odd_settings::/)'
	HOLDFAST_SIMULATIONS=2000 cargo nextest run --locked --profile nightly -p holdfast-agent --features testing -E 'test(/simulation::/)'

lint: ## format check and clippy
	@cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

fmt: ## format the sources
	@cargo fmt --all

doc: ## the documentation of the crates
	@RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

fidelity: ## show what Holdfast and its peers keep and lose, in docs/fidelity.md; FIDELITY="--only mysql" for one server
	@tests/set-up/install.sh build mariadb mariadb118 mysql mydumper
	$(ENVIRONMENT)
	cargo build --locked --workspace --bins
	PYTHONDONTWRITEBYTECODE=1 python3 tests/fidelity/fidelity.py --holdfast "$$PWD/target/debug/holdfast" $(FIDELITY)

bench: ## measure Holdfast and its peers side by side, which takes long; BENCH=--quick tries it out
	@tests/set-up/install.sh build mariadb mysql sysbench mydumper
	$(ENVIRONMENT)
	cargo build --release --locked --workspace --bins
	PYTHONDONTWRITEBYTECODE=1 python3 tests/bench/bench.py $(BENCH)
