# Two commands from a fresh clone: `make demo` and `make test`. Everything is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Newer than Makefile, pyproject.toml and constraints.lock: nothing to install.
INSTALLED := $(VENV)/.installed
INSTALLED_PEERS := $(VENV)/.installed-peers
LOCK_FLAGS := --universal --all-extras --python-version 3.11 --no-emit-index-url --no-annotate

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench-cpu lock clean
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## train four layers on parity (minutes on two CPU cores), print the table
	@$(BIN)/fastweights study demo --out runs/demo; status=$$?; \
	$(BIN)/fastweights report runs/demo && exit $$status

test: lint ## check style, types and imports, run the default tests
	$(BIN)/python -m pytest -n auto

lint: $(INSTALLED) ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench-cpu: $(INSTALLED_PEERS) ## measure the CPU kernels beside their peers into results/ (FLAGS=--help)
	$(BIN)/python -m benchmarks.cpu_kernels $(FLAGS)

clean: ## remove .venv and the caches; runs/ stays
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null \
	  || { echo "error: $(PYTHON) not found: Python 3.11 or newer is needed" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "error: $(PYTHON) \
	is %d.%d: Python 3.11 or newer is needed (make PYTHON=/path/to/python)" % sys.version_info[:2])'
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
	  echo "error: $(PYTHON) -m venv failed (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }

# uv does not read pip's configuration: hand it pip's folder of wheels, index and certificate, from
# the environment or any of pip's files (`pip config get` would read one file only). Without a folder
# of wheels uv picks the build of torch that fits the machine.
define USE_PIP_SETTINGS
settings=$$($(BIN)/python -m pip config list); \
setting() { printf '%s\n' "$$settings" \
  | sed -nE "s/^(:env:|global|install)\.$$1='(.*)'\$$/\2/p" | sed 's/\\n/ /g;s/^ *//' | head -n 1; }; \
links=$${UV_FIND_LINKS:-$$(setting find-links | tr -s ' ' ',')}; \
index=$${UV_DEFAULT_INDEX:-$$(setting index-url)}; \
cert=$${SSL_CERT_FILE:-$$(setting cert)}; \
if [ -n "$$links" ]; then export UV_FIND_LINKS="$$links"; \
else export UV_TORCH_BACKEND="$${UV_TORCH_BACKEND:-auto}"; fi; \
if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
if [ -n "$$cert" ]; then export SSL_CERT_FILE="$$cert"; fi; \
if [ ! -w "$${HOME:-/nonexistent}" ]; then export UV_CACHE_DIR="$${UV_CACHE_DIR:-$(VENV)/.uv}"; fi
endef

HAVE_UV := [ -x $(BIN)/uv ] || \
  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.lock uv

COMMA := ,
# $(call INSTALL,EXTRAS)
define INSTALL
$(USE_PIP_SETTINGS); \
if { $(HAVE_UV); } && $(BIN)/uv pip install --python $(BIN)/python -c constraints.lock -e '.[$(1)]'; then :; \
else \
  echo "uv cannot install it; using pip, which is slower"; \
  $(BIN)/python -m pip install --disable-pip-version-check -c constraints.lock -e '.[$(1)]'; \
fi
endef

$(INSTALLED): Makefile pyproject.toml constraints.lock | $(BIN)/python
	@echo "installing fastweights and its dependencies into $(VENV)"
	@$(call INSTALL,dev$(COMMA)text$(COMMA)hf)
	@touch $@

$(INSTALLED_PEERS): $(INSTALLED)
	@echo "installing what the benchmarks compare with into $(VENV)"
	@$(call INSTALL,dev$(COMMA)text$(COMMA)hf$(COMMA)benchmarks)
	@touch $@

# torch pins the CUDA libraries and Triton itself, each of its builds others: they are left out.
lock: | $(BIN)/python ## remake constraints.lock, keeping the versions in it; UPGRADE=1 renews them
	@$(USE_PIP_SETTINGS); unset UV_FIND_LINKS UV_TORCH_BACKEND; { $(HAVE_UV); } && \
	$(BIN)/uv pip compile $(LOCK_FLAGS) $(if $(UPGRADE),--upgrade) \
	  --custom-compile-command 'make lock' --quiet pyproject.toml -o constraints.lock
	@grep -v -E '^(cuda|nvidia)-|^triton==' constraints.lock > constraints.lock.tmp
	@mv constraints.lock.tmp constraints.lock
