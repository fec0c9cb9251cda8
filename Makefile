# Everything works in .venv beside this file; nothing else on the machine is touched.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
LOCK := .ci/requirements.lock
TEST_LOCK := .ci/requirements-test.lock
MODEL := $(VENV)/model
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help up install test check format bench lock clean

help: ## Show what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

up: install ## Set up, bring in the sample knowledge base, ask it a question, and serve
	@exec $(BIN)/kvasir up --sample

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml $(LOCK)
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(FITS)' \
	  || { echo "Kvasir needs Python 3.11, 3.12 or 3.13; name one: make up PYTHON=/path/to/python3.12"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) \
	  || { echo "No environment can be made; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "Installing Kvasir into $(VENV)…"
	@$(BIN)/python -m pip install -q --require-hashes -r $(LOCK)
	@$(BIN)/python -m pip install -q --no-deps -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed $(TEST_LOCK)
	@echo "Installing what the tests need…"
	@$(BIN)/python -m pip install -q --require-hashes -r $(TEST_LOCK)
	@touch $@

.PHONY: model
model: install
	@$(BIN)/python -P -c "from pathlib import Path; from core.embedders.fetch import fetch_model; fetch_model(Path('$(MODEL)'))" \
	  || echo "The embedding model could not be fetched; the tests that need it are skipped."

test: $(VENV)/.installed-test model ## Run the whole test suite
	@KVASIR_TEST_MODEL_DIR=$(abspath $(MODEL)) PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/.installed-test ## Look at style, types and layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.installed-test ## Put the code into shape
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-test model ## Measure, as ratios in one run
	@KVASIR_TEST_MODEL_DIR=$(abspath $(MODEL)) $(BIN)/python -P -m bench $(ARGS)

lock: ## Write the lists of pinned packages anew (needs uv)
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  pyproject.toml -o $(LOCK)
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  pyproject.toml --extra postgres --extra weaviate --group test --group check -o $(TEST_LOCK)
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  pyproject.toml --extra postgres --extra weaviate --extra oidc -o .ci/requirements-image.lock
	@echo 'hatchling>=1.25' | uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate - -o .ci/requirements-build.lock

clean: ## Remove the environment and what tools left behind
	@rm -rf $(VENV) .venv-* dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
