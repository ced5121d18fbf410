# What developers and CI run. `make` alone lists the targets; `./install.sh test` prepares the environment first.

BIN := .venv/bin
SCRIPTS := install.sh .ci/run systemd/backoff systemd/supervise $(shell find tests -name '*.sh')

# Every lock holds the build requirements too, so an install needs nothing that has no hash.
COMPILE := $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-index-url \
	--no-emit-find-links --no-emit-trusted-host --build-deps-for wheel

.DEFAULT_GOAL := help
.PHONY: help check test fmt lock bench-deploy bench-agent bench-place bench-diff bench-api bench-authz

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

check: ## linters: ruff, mypy, import contracts, shellcheck
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	shellcheck $(SCRIPTS)

test: ## the whole suite, its parts side by side; with ARGS pytest alone
	$(if $(ARGS),$(BIN)/python -m pytest $(ARGS),tests/all.sh)

fmt: ## format and fix what can be fixed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lock: ## requirements/*.lock from pyproject.toml; ARGS=--upgrade for the newest of everything
	$(COMPILE) $(ARGS) --build-deps-for editable --extra coordinator --extra agent --extra dev -o requirements/dev.lock pyproject.toml
	$(COMPILE) -c requirements/dev.lock --extra coordinator --extra agent -o requirements/all.lock pyproject.toml
	$(COMPILE) -c requirements/dev.lock --extra coordinator -o requirements/coordinator.lock pyproject.toml
	$(COMPILE) -c requirements/dev.lock --extra agent -o requirements/agent.lock pyproject.toml

bench-deploy: ## container.create until every replica is healthy; the benches print one JSON object each
bench-agent: ## what the agent costs a node
bench-place: ## the scheduler's pure part
bench-diff: ## the agent's pure part
bench-api: ## what a read over the API costs beyond HTTP
bench-authz: ## the pure permission decision
bench-deploy bench-agent bench-place bench-diff bench-api bench-authz: bench-%:
	@$(BIN)/python -m tests.bench.$* $(ARGS)
