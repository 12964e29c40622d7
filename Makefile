# Everything a developer or a newcomer runs. `make help` lists it.
# Each target makes .venv by itself from requirements/dev.lock, with uv when it is there, with venv and pip when not.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
READY := .venv/.ready
PROGRAMS := mosquitto chromium tmux gcc
# Lines of the table below, and lines of code, keep the same order on every machine.
export LC_ALL := C.UTF-8

.PHONY: help demo test check bench campaign compiled docs lock programs

help: ## List these targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'
	@echo "  HEADLESS=1 with demo: no terminal, progress on stderr, one JSON object on stdout"

demo: $(READY) compiled ## Three minutes: a batch, the network cut, the power pulled, a record that verifies
	@$(BIN)/lineside demo $(if $(HEADLESS),--headless)

test: $(READY) programs compiled ## Every test, on all cores
	@$(BIN)/python -m pytest -n auto --dist loadgroup

check: $(READY) ## Style, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(READY) compiled ## Measure against the raw limit of this machine; ROW="drivers tags"
	@$(BIN)/python -m bench $(ROW)

campaign: $(READY) compiled ## Faults by the hundred thousand; ROW=1,3 SIZE=gate JOBS=2 MINUTES=10 SEED=7 ONLY=1
	@$(BIN)/python -m tests.campaign $(if $(ROW),--row $(ROW)) $(if $(SIZE),--size $(SIZE)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(JOBS),--jobs $(JOBS)) \
	  $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only) $(if $(JSON),--json)

docs: $(READY) ## Make the reference pages anew from the code
	@$(BIN)/python docs/make_reference.py

lock: ## Resolve requirements/*.lock anew (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv: see https://docs.astral.sh/uv/" >&2; exit 1; }
	@$(call compile,dev,--extra dev)
	@for extra in edge ui hub; do \
	  $(call compile,$$extra,$$(test $$extra = edge || echo --extra $$extra) --extra build --constraints requirements/dev.lock); done

# Universal: for x86-64 and aarch64 alike. No index address gets into a lock.
compile = uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
  --no-emit-find-links --no-annotate $(2) -o requirements/$(1).lock pyproject.toml

# Our bytecode: without it a first start takes three times as long. Their libraries' was made with the environment.
compiled: $(READY)
	@$(BIN)/python -m compileall -q edge drivers ui hub provisioning demo bench

# Programs that some tests drive. Installed when we may; otherwise the tests that need them say so and are skipped.
programs:
	@missing=(); for program in $(PROGRAMS); do \
	  PATH=$$PATH:/usr/sbin command -v $$program >/dev/null || missing+=($$program); done; \
	if [ $${#missing[@]} -gt 0 ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$${missing[@]}" >&2; \
	  else echo "Not installed: $${missing[*]}. On Debian: sudo apt install $${missing[*]}" >&2; fi; fi

# The environment. Its making goes to stderr: stdout belongs to the target.
$(READY): requirements/dev.lock pyproject.toml
	@if command -v uv >/dev/null; then \
	  uv venv -q --allow-existing --python '>=3.11' .venv >&2; \
	  echo "Installing what is locked in requirements/dev.lock ..." >&2; \
	  uv pip install -q --python $(BIN)/python --compile-bytecode --require-hashes -r requirements/dev.lock >&2; \
	  uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e . >&2; \
	else \
	  python=; for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; done; \
	  [ -n "$$python" ] || { echo "Lineside needs Python 3.11 or newer; found: $$( (python3 --version) 2>/dev/null || echo none)." \
	    "Install it (Debian 12: sudo apt install python3), or install uv, or name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
	  "$$python" -c 'import ensurepip, venv' 2>/dev/null || { echo "$$python has no venv module." \
	    "On Debian: sudo apt install python3-venv. Or install uv." >&2; exit 1; }; \
	  "$$python" -m venv .venv >&2; \
	  echo "Installing what is locked in requirements/dev.lock ..." >&2; \
	  $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.lock >&2; \
	  $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . >&2; \
	fi
	@touch $@
