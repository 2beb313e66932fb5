# The face of the project: make up, make test, make check, make bench.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: up test check bench lock clean

up: $(VENV)/ready ## Start Handfast on this machine, with a demo service behind its gateway
	@$(BIN)/handfast up

test: $(VENV)/ready-dev ## Run all tests
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

check: $(VENV)/ready-dev ## Look at style, types, layers
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

bench: $(VENV)/ready-dev ## Measure, beside peers, in one run each
	@$(BIN)/python -m bench.gateway
	@$(BIN)/python -m bench.revocation
	@$(BIN)/python -m bench.issuance
	@$(BIN)/python -m bench.status

# Locked dependencies, each with its hash; then this checkout itself.
$(VENV)/ready: requirements.lock pyproject.toml
	@echo "Setting up $(VENV) (once) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/ready-dev: requirements-dev.lock $(VENV)/ready
	@echo "Adding what tests need (once) …"
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

lock: ## Renew the lock files; needs uv
	uv pip compile pyproject.toml --group build --universal --generate-hashes --no-header --upgrade -o requirements.lock
	uv pip compile pyproject.toml --group build --group dev --universal --generate-hashes --no-header -c requirements.lock --upgrade -o requirements-dev.lock

clean: ## Remove what was set up; state in .handfast stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
