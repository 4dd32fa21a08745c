# Everything a person does here. The virtual environment is made on first use; nothing outside the checkout is touched.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PATTERN ?=
ARGS ?=
STAMP := $(VENV)/installed
PLUGINS := plugins/actconform-keras plugins/actconform-torch plugins/actconform-onnxruntime plugins/actconform-faulty

.DEFAULT_GOAL := help
.PHONY: help install conform test check format bench golden selftest detection selftest-peers stability docs clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv with core, plugins and tools at pinned versions

$(STAMP): pyproject.toml constraints.txt $(addsuffix /pyproject.toml,$(PLUGINS))
	@echo "Making $(VENV): downloads about 1.2 GB on Linux x86-64 (tensorflow 572 MB, onnxruntime-gpu 256 MB, torch 192 MB as CPU build,"
	@echo "the rest 150 MB), 3.6 GB unpacked. The index's default torch for Linux brings CUDA libraries of several GB on top: point"
	@echo "PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL to PyTorch's CPU builds to avoid that."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]" \
		-e plugins/actconform-keras -e plugins/actconform-torch -e "plugins/actconform-onnxruntime[default]" -e plugins/actconform-faulty
	@touch $@

conform: $(STAMP) ## Run the default matrix and print what differs (PATTERN='gelu-*' narrows it)
	@set -f; $(BIN)/actconform run $(PATTERN) $(ARGS)

test: $(STAMP) ## Run the tests, an end-to-end run of the real frameworks among them
	$(BIN)/python -m pytest $(ARGS)

check: $(STAMP) ## Format, lint, types, order of the layers, documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	@$(BIN)/actconform deviations document | diff -u docs/known-deviations.md - || (echo "docs/known-deviations.md is stale: make docs"; exit 1)
	@$(BIN)/python -m actconform.report.schema | diff -u docs/report-schema.json - || (echo "docs/report-schema.json is stale: make docs"; exit 1)

format: $(STAMP) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Measure what must be fast, as ratios in one run
	$(BIN)/python -m actconform.bench $(ARGS)

golden: $(STAMP) ## Verify the goldens, 16-bit tables included
	$(BIN)/actconform golden verify

selftest: $(STAMP) ## Find every planted fault, and accuse no healthy backend
	$(BIN)/actconform selftest $(ARGS)

detection: $(STAMP) ## The same, and write the table into README.md
	$(BIN)/actconform selftest --into README.md

selftest-peers: $(STAMP) ## The same faults under others' inputs and limits; ARGS='--into docs/detection.md' writes the table
	$(BIN)/python -m actconform_faulty.peers $(ARGS)

stability: $(STAMP) ## Ten runs over threads and instruction sets: no verdict changes without a changed fact
	$(BIN)/python -m actconform.stability $(ARGS)

docs: $(STAMP) ## Write the generated documents
	$(BIN)/actconform deviations document > docs/known-deviations.md
	$(BIN)/python -m actconform.report.schema > docs/report-schema.json

clean: ## Remove .venv and everything that was built
	rm -rf $(VENV) conform-out build dist
