# Everything works in .venv beside this file; nothing else on the machine is touched.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
LOCK := .ci/requirements.lock
TEST_LOCK := .ci/requirements-test.lock
MODEL := $(VENV)/model
MODELS_VENV := .venv-models
STORES_VENV := .venv-stores
STORES_LOCK := .ci/requirements-stores.lock
MODELS_LOCK := .ci/requirements-models.lock
CUDA_LOCK := .ci/requirements-cuda.lock
LLAMACPP_VERSION := 0.3.36
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help up install test test-models test-stores check format bench lock clean

help: ## Show what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

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

# Many tests wait for other processes: with two runners a core these are busy all the same.
RUNNERS ?= $(shell $(BIN)/python -c 'import os; print((os.cpu_count() or 1) * 2)')
test: $(VENV)/.installed-test model ## Run the whole test suite
	@KVASIR_TEST_MODEL_DIR="$(CURDIR)/$(MODEL)" PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q -n $(RUNNERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# torch and what is compiled take 7 GB, so they have an environment of their own; uv fills it sooner than pip (`UV=uv`).
UV ?=
MODELS_PIP = $(if $(UV),UV_NO_CONFIG=1 UV_PYTHON=$(MODELS_VENV)/bin/python $(UV) pip,$(MODELS_VENV)/bin/python -m pip)

$(MODELS_VENV)/.made:
	@test -n "$(PYTHON)" || { echo "Kvasir needs Python 3.11, 3.12 or 3.13"; exit 1; }
	@$(MODELS_VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(MODELS_VENV)
	@touch $@

$(MODELS_VENV)/.installed: $(MODELS_VENV)/.made $(MODELS_LOCK)
	@echo "Installing torch and what else local models need into $(MODELS_VENV) (7 GB)…"
	@$(MODELS_PIP) install -q --require-hashes -r $(MODELS_LOCK)
	@touch $@

# llama-cpp-python is published as sources alone, ten minutes of two cores: a wheel of it that is there, or on request.
.PHONY: models-env
models-env: $(MODELS_VENV)/.installed
	@$(MODELS_PIP) install -q --no-deps -e .
	@$(MODELS_VENV)/bin/python -c "import llama_cpp" 2>/dev/null && exit; \
	  wheel="$(KVASIR_LLAMACPP_WHEEL)"; \
	  test -n "$$wheel" || wheel=$$($(MODELS_VENV)/bin/python -m pip cache list --format abspath llama_cpp_python-$(LLAMACPP_VERSION) 2>/dev/null | tail -n 1); \
	  if test -n "$$wheel"; then $(MODELS_VENV)/bin/python -m pip install -q --no-deps "$$wheel"; \
	  elif test -n "$(LLAMACPP)"; then echo "Compiling llama-cpp-python…"; \
	    CMAKE_ARGS="-DLLAVA_BUILD=OFF" $(MODELS_VENV)/bin/python -m pip install -q --no-deps llama-cpp-python==$(LLAMACPP_VERSION); \
	  else echo "llama-cpp-python is not installed, its tests are skipped: make test-models LLAMACPP=1 compiles it," \
	    "KVASIR_LLAMACPP_WHEEL names a wheel of it."; fi

# Those files of tests that say themselves that they are skipped without; all others `make test` has run.
test-models: models-env model ## Run the tests that need torch or a compiled engine
	@KVASIR_TEST_MODEL_DIR="$(CURDIR)/$(MODEL)" $(MODELS_VENV)/bin/python -m pytest -q \
	  $(or $(TESTS),$(shell grep -lE 'importorskip|find_spec' tests/serving/test_*.py)) $(ARGS)

$(STORES_VENV)/.installed: $(STORES_LOCK)
	@test -n "$(PYTHON)" || { echo "Kvasir needs Python 3.11, 3.12 or 3.13"; exit 1; }
	@$(STORES_VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(STORES_VENV)
	@echo "Installing LanceDB and Milvus Lite into $(STORES_VENV) (1.3 GB)…"
	@$(STORES_VENV)/bin/python -m pip install -q --require-hashes -r $(STORES_LOCK)
	@touch $@

# CUDA's compiler out of packages: 2 GB more, and no card is needed for it.
.PHONY: test-extension gpu-drill
test-extension: models-env ## Compile ExLlama's extensions, without a card; one of them: LIBRARY=exllamav2 (half an hour)
	@$(MODELS_PIP) install -q --require-hashes -r $(CUDA_LOCK)
	@for library in $(or $(LIBRARY),exllamav2 exllamav3); do \
	  $(MODELS_VENV)/bin/kvasir model build --kind $$library --arch $(or $(ARCH),9.0) --into "$(CURDIR)/$(MODELS_VENV)/extensions" || exit 1; \
	done

gpu-drill: models-env ## Try ExLlamaV2 and ExLlamaV3 on this machine's NVIDIA card
	@$(MODELS_VENV)/bin/python -P -m bench.gpu_drill $(ARGS)

test-stores: $(STORES_VENV)/.installed ## Run the tests of the stores lancedb and milvus
	@$(STORES_VENV)/bin/python -m pip install -q --no-deps -e .
	@$(STORES_VENV)/bin/python -m pytest -q tests/contracts/test_stores_extra.py tests/core/test_stores_extra.py $(ARGS)

check: $(VENV)/.installed-test ## Look at style, types and layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.installed-test ## Put the code into shape
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-test model ## Measure, as ratios in one run
	@KVASIR_TEST_MODEL_DIR="$(CURDIR)/$(MODEL)" $(BIN)/python -P -m bench $(ARGS)

lock: ## Write the lists of pinned packages anew (needs uv)
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  pyproject.toml -o $(LOCK)
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  pyproject.toml --extra postgres --extra s3 --extra weaviate --group test --group check -o $(TEST_LOCK)
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  pyproject.toml --extra postgres --extra s3 --extra weaviate --extra oidc -o .ci/requirements-image.lock
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  pyproject.toml --group test --group models -o $(MODELS_LOCK)
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  pyproject.toml --extra lancedb --extra milvus --group test -o $(STORES_LOCK)
	@echo "$$(grep -o '^cuda-toolkit==[0-9.]*' $(MODELS_LOCK) | sed 's/==/[nvcc,crt,nvvm,cccl,cudart,cublas,cusparse,cusolver,curand]==/'); sys_platform == 'linux'" \
	  | uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate - -o $(CUDA_LOCK)
	@echo 'hatchling>=1.25' | uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate - -o .ci/requirements-build.lock

clean: ## Remove the environment and what tools left behind
	@rm -rf $(VENV) .venv-* dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
