# `make help` lists the targets. Each makes what it needs, in directories that git ignores, and nothing twice.
#
#   PYTHON    the interpreter to build for, 3.11 or newer (make test PYTHON=python3.13)
#   PYTEST    arguments for pytest (make test PYTEST="-k pause -x")
#   FUZZ_SECONDS  how long make fuzz goes on
#   DEMO      arguments for the demo (make demo DEMO=--keep, to look at it in a browser)
#
# .venv        the working tree itself, with named points compiled in (pip's editable install)
# .venv-ft     the same for a free-threaded interpreter, which scripts/free_threaded.sh finds or builds
# .venv-demo   what a user gets: the wheel, built for release
# .venv-bench  the same, with the peers to compare with; .venv-bench-ft without the GIL, and without them
# The lint, docs and test tools are in .venv. ThreadSanitizer's build is in target/tsan: scripts/tsan.sh.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
PYTEST ?=
DEMO ?=
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_QUIET := 1

rust := Cargo.toml Cargo.lock .cargo/config.toml $(shell find crates -name '*.rs' -o -name Cargo.toml)
package := $(shell find python -name '*.py' -o -name '*.pyi' -o -path '*/page/*')

.DEFAULT_GOAL := help

.PHONY: help
help:  ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo
	@sed -n '/^#   [A-Z]/s/^# //p' Makefile

# --- What is built ---------------------------------------------------------------------------------------------------

.PHONY: build build-ft
build: .venv/.built  ## .venv: the package from the working tree, and what the tests need
build-ft: .venv-ft/.built  ## .venv-ft: the same, free-threaded

.PHONY: need-rust
need-rust:
	@command -v cargo >/dev/null || { echo "make: cargo is missing: install Rust 1.85 or newer (https://rustup.rs)" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "make: cc is missing: install a C compiler, it links the extension (Debian: build-essential)" >&2; exit 1; }

# new_venv DIRECTORY, INTERPRETER: a virtual environment with a pip that knows dependency groups.
define new_venv
	@python="$(2)"; \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "make: Python 3.11 or newer is needed, and $$python is $$("$$python" --version 2>&1 || true): name one in PYTHON=" >&2; exit 1; }; \
	test -x $(1)/bin/python || "$$python" -m venv $(1) || \
		{ echo "make: $$python cannot make a virtual environment (Debian: apt-get install python3-venv)" >&2; exit 1; }
	$(1)/bin/python -m pip install --upgrade 'pip>=25.1'
	@touch $(1)/.made
endef

.venv/.made .venv-demo/.made .venv-bench/.made:
	$(call new_venv,$(@D),$(PYTHON))

.venv-ft/.made .venv-bench-ft/.made:
	$(call new_venv,$(@D),$$(scripts/free_threaded.sh))

%/.test-tools: %/.made pyproject.toml
	$*/bin/python -m pip install --group build --group test
	@touch $@

.venv/.lint-tools .venv/.docs-tools: .venv/.%-tools: .venv/.made pyproject.toml
	.venv/bin/python -m pip install --group $*
	@touch $@

# The development profile, with named points. A directory each: cargo would else build PyO3 anew at every change.
.venv/.built: .venv/.test-tools $(rust) pyproject.toml | need-rust
	VIRTUAL_ENV=$(CURDIR)/.venv .venv/bin/maturin develop --quiet --features points
	@touch $@

.venv-ft/.built: .venv-ft/.test-tools $(rust) pyproject.toml | need-rust
	VIRTUAL_ENV=$(CURDIR)/.venv-ft CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/ft \
		.venv-ft/bin/maturin develop --quiet --features points
	@touch $@

# The wheel, as a user would get it. By pip, so that what pip does to it is seen here first.
.venv-demo/.built: .venv-demo/.made $(rust) $(package) pyproject.toml | need-rust
	.venv-demo/bin/python -m pip install --force-reinstall --no-deps .
	.venv-demo/bin/python -m pip install 'manyhands[demo]'
	@touch $@

.venv-bench/.built: .venv-bench/.made $(rust) $(package) pyproject.toml | need-rust
	.venv-bench/bin/python -m pip install --group bench
	.venv-bench/bin/python -m pip install --force-reinstall --no-deps .
	@touch $@

.venv-bench-ft/.built: .venv-bench-ft/.made $(rust) $(package) pyproject.toml | need-rust
	.venv-bench-ft/bin/python -m pip install --group bench-ft
	CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/ft .venv-bench-ft/bin/python -m pip install --force-reinstall --no-deps .
	@touch $@

# --- What is run -----------------------------------------------------------------------------------------------------

.PHONY: demo
demo: .venv-demo/.built  ## a Flask application, 500 slow clients, and clients that hang up: what happens (15 s)
	.venv-demo/bin/manyhands demo $(DEMO)

.PHONY: test test-core test-python
test: test-core test-python  ## the tests, but for the stress
test-core: | need-rust
	cargo test --quiet -p manyhands-core --features points
test-python: .venv/.built
	.venv/bin/python -m pytest -m "not stress" $(PYTEST)

.PHONY: test-ft
test-ft: .venv-ft/.built  ## the tests without the GIL
	@# What a framework imports is walked through by every collection there, and tests make many.
	.venv-ft/bin/python -X gil=0 -m pytest -m "not stress and not whole" --ignore-glob="*/test_django*" \
		--ignore-glob="*/test_flask*" --ignore-glob="*/test_framework*" --ignore-glob="*/test_fuzz*" $(PYTEST)

# Three ways to make a race likelier: hand the GIL on a hundred times as often; take the GIL away; and then run each
# test on three threads at once, with as many loops side by side.
.PHONY: test-races test-races-gil test-races-ft
test-races: test-races-gil test-races-ft  ## the race tests, often interrupted and side by side
test-races-gil: .venv/.built
	.venv/bin/python -m pytest -q -rfE -m "race and not stress" --switch-interval 1e-5 $(PYTEST)
test-races-ft: .venv-ft/.built
	.venv-ft/bin/python -X gil=0 -m pytest -q -rfE -m "race and not stress" \
		--parallel-threads 3 --skip-thread-unsafe=true $(PYTEST)

.PHONY: loom
loom: | need-rust  ## the models of the core's races, every interleaving of them
	@# One at a time: what is the process's own (the counters, the list for a fork) would make two models disturb each other.
	RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 LOOM_MAX_BRANCHES=10000 CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/loom \
		cargo test --quiet --profile loom -p manyhands-core --test loom -- --test-threads=1

.PHONY: machine
machine: .venv/.built  ## ten thousand random steps of jobs, and of connections, against the models of them
	MANYHANDS_MACHINE_STEPS=10000 .venv/bin/python -m pytest tests/test_job_machine.py tests/server/test_connection_machine.py $(PYTEST)

# Bytes that nobody chose, as long as one likes. Hypothesis goes on from what it found before (.hypothesis); it draws the same
# every time where CI is set.
FUZZ_SECONDS ?= 300
.PHONY: fuzz
fuzz: .venv/.built  ## random requests, frames and addresses against the server, for FUZZ_SECONDS (300)
	@end=$$((SECONDS + FUZZ_SECONDS)); rounds=0; \
	while ((SECONDS < end)); do \
		CI= MANYHANDS_FUZZ_EXAMPLES=1000 .venv/bin/python -m pytest -q -x --show-capture=no -o faulthandler_timeout=600 \
			tests/server/test_fuzz_*.py $(PYTEST) || exit 1; \
		rounds=$$((rounds + 1)); \
	done; echo "$$rounds rounds of a thousand examples a test: nothing found"

.PHONY: mutants
mutants: .venv/.built  ## break the core on purpose, one way at a time: a test must notice
	.venv/bin/python scripts/mutants.py

.PHONY: tsan
tsan: | need-rust  ## the core under ThreadSanitizer (the first time builds an interpreter, 10 minutes)
	scripts/tsan.sh

.PHONY: stress
stress: .venv/.built  ## a minute of load: connections, removals, reuse of numbers
	.venv/bin/python -m pytest -m stress $(PYTEST)

.PHONY: bench bench-ft
bench: .venv-bench/.built  ## the benchmarks; needs a quiet machine
	.venv-bench/bin/python -m benchmarks
bench-ft: .venv-bench-ft/.built  ## .venv-bench-ft: what the benchmarks need to compare without the GIL

.PHONY: docs
docs: .venv/.built .venv/.docs-tools  ## docs/_build/html
	.venv/bin/python -m sphinx -n -W --keep-going -q -b html docs docs/_build/html

# --- What a machine can check ----------------------------------------------------------------------------------------

clippy := cargo clippy --quiet --all-targets

.PHONY: lint lint-python lint-rust
lint: lint-python lint-rust  ## formatting, lints, types, the stub, the arrows between modules
lint-python: .venv/.built .venv/.lint-tools
	.venv/bin/ruff check --quiet .
	.venv/bin/ruff format --quiet --check .
	.venv/bin/mypy
	.venv/bin/python -m mypy.stubtest manyhands
	.venv/bin/lint-imports --no-cache
	.venv/bin/python scripts/behaviours.py
	@git ls-files '*.py' '*.rs' '*.pyi' 2>/dev/null | xargs -r wc -l | \
		awk '$$1 > 400 && $$2 != "total" {printf "note: %s has %d lines; a file with one noun has fewer than 400\n", $$2, $$1}'
lint-rust: | need-rust
	cargo fmt --check
	$(clippy) --workspace -- -D warnings
	$(clippy) --workspace --features manyhands-core/points,manyhands-py/points -- -D warnings

.PHONY: fmt
fmt: .venv/.lint-tools | need-rust  ## format everything
	.venv/bin/ruff check --quiet --fix-only .
	.venv/bin/ruff format --quiet .
	cargo fmt

.PHONY: clean
clean:  ## remove what make has made; the interpreters of scripts/ stay in the user's cache
	rm -rf target .venv .venv-ft .venv-demo .venv-bench .venv-bench-ft .venv-tsan docs/_build .mypy_cache .ruff_cache .hypothesis
	find python tests benchmarks examples scripts docs -name __pycache__ -prune -exec rm -rf {} +
	rm -f python/manyhands/_core.*.so
