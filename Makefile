# Everything a person or CI runs; each target works alone on a fresh Debian 12.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help venv demo test static unit integration proto proto-check format man lab-image lab test-xen test-xen-ci test-xen-long sim-long model-long mutants fuzz bench deb test-deb clean

help: ## List the targets.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

venv: $(STAMP)
$(STAMP): pyproject.toml
	@deploy/bootstrap $(PYTHON) $(VENV)
	@touch $(STAMP)

demo: $(STAMP) ## Protect and fail over a guest on the simulated Xen (no root); MODE=remus or colo.
	@$(BIN)/python -m tests.demo$(if $(filter colo,$(MODE)),_colo)

test: $(STAMP) ## Set up and run every check and test that needs no hypervisor.
	@deploy/test-prerequisites $(VENV)
	@$(MAKE) --no-print-directory static
	$(BIN)/python -m pytest -n 2 --dist loadscope tests $(addprefix --ignore=tests/,xen bench packaging)

sim-long: $(STAMP) ## Ten thousand seeded runs of the daemons in virtual time (an hour).
	$(BIN)/python -m tests.sim 1 10000

chaos-long: $(STAMP) ## Two hundred rounds of chaos on the simulated Xen (root; most of an hour).
	$(BIN)/python -m tests.scenarios 1 200

model-long: $(STAMP) ## The longer walks of the failover model (tens of minutes).
	$(BIN)/python -m tests.model.walks

mutants: $(STAMP) ## Judge the model: find anew what kills each damaged rule, then test it.
	$(BIN)/python -m tests.model.mutation
	$(BIN)/python -m pytest tests/model/test_mutants.py

fuzz: $(STAMP) ## Each parser for FUZZ_SECONDS (60), guided by coverage where atheris can be installed.
	-$(BIN)/python -m pip install -q --only-binary atheris -e '.[dev,fuzz]'
	$(BIN)/python -m tests.fuzz all --seconds $${FUZZ_SECONDS:-60}

static: $(STAMP) ## ruff, format, mypy --strict, import-linter, generated code.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory proto-check

format: $(STAMP) ## Rewrite the sources in the project's format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(STAMP) ## Generate colod/v1 from proto/.
	@deploy/generate-proto $(BIN)

proto-check: $(STAMP) ## Fail when the generated code is not what proto/ gives.
	@deploy/generate-proto $(BIN) --check

man: $(STAMP) ## Write the man pages into build/man.
	$(BIN)/python -m colod.cli.manual build/man
	cp docs/man/*.8 build/man/

lab-image: $(STAMP) ## Build the nested Xen hosts' image and booted snapshot (root; minutes).
	@$(BIN)/python -m tests.xen.lab image

lab: $(STAMP) ## Boot the pair of nested Xen hosts and leave it for a shell (root).
	@$(BIN)/python -m tests.xen.lab up

test-xen: $(STAMP) ## Full set of tests on the nested pair of real Xen hosts (root).
	$(BIN)/python -m pytest tests/xen -m "lab and not lab_long" -p no:randomly

test-xen-ci: $(STAMP) ## The subset of test-xen that CI runs; says so where the lab cannot boot.
	COLOD_LAB_MINUTES=$${COLOD_LAB_MINUTES:-25} $(BIN)/python -m pytest tests/xen -m "lab and lab_ci" -p no:randomly

test-xen-long: $(STAMP) ## Soaks and many kills on the nested pair (root; hours).
	$(BIN)/python -m pytest tests/xen -m lab_long -p no:randomly

bench: $(STAMP) ## Benchmarks beside their rivals, as ratios, into docs/performance.md (root).
	@deploy/bench-prerequisites
	$(BIN)/python -m tests.bench --write docs/performance.md

deb: ## Build the Debian package (Debian 12) into build/.
	@deploy/build-deb

test-deb: $(STAMP) ## Build, install, upgrade and remove the package in containers (root; minutes).
	@deploy/deb-test-prerequisites
	$(BIN)/python -m pytest tests/packaging -p no:randomly

clean: ## Remove what the targets above made (the lab's cache too).
	rm -rf $(VENV) build dist .lab *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
