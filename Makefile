# Everything a person does here. The virtual environment is made on first use; nothing outside the checkout is touched.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PATTERN ?=
ARGS ?=
BACKENDS ?=
NIGHTLY_BACKENDS := keras torch ort-cpu keras-xla keras-jax keras-torch torch-compile jax openvino onnx-reference onnx-reference-float64
STAMP := $(VENV)/installed
PLUGINS := $(addprefix plugins/actconform-,keras torch onnxruntime faulty jax openvino reference)

JAX2ONNX := jax2onnx flax equinox jaxtyping wadler_lindig treescope optax dm_pix einops chex toolz PyYAML msgpack

.DEFAULT_GOAL := help
.PHONY: help install conform test browser check format bench golden selftest detection selftest-peers accuracy stability report docs clean \
	nightly nightly-part nightly-bench nightly-selftest nightly-collect nightly-summary

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv with core, plugins and tools at pinned versions

$(STAMP): pyproject.toml constraints.txt $(addsuffix /pyproject.toml,$(PLUGINS))
	@echo "Making $(VENV): downloads about 1.4 GB on Linux x86-64 (tensorflow 572 MB, onnxruntime-gpu 256 MB, torch 192 MB as CPU build,"
	@echo "jaxlib 85 MB, openvino 59 MB, the rest 150 MB), 4 GB unpacked. The index's default torch for Linux brings CUDA libraries of several GB on top: point"
	@echo "PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL to PyTorch's CPU builds to avoid that."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]" \
		$(patsubst %,-e '%',$(PLUGINS:%onnxruntime=%onnxruntime[default]))
	@# jax2onnx requires the CPU package of ONNX Runtime, which writes over the other one; what it needs beside that:
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps $(JAX2ONNX)
	@touch $@

conform: $(STAMP) ## Run the default matrix and print what differs (PATTERN='gelu-*' narrows it, BACKENDS=all widens it)
	@set -f; $(BIN)/actconform run $(PATTERN) $(addprefix --backend ,$(BACKENDS)) $(ARGS)

test: $(STAMP) ## Run the tests, an end-to-end run of the real frameworks among them
	$(BIN)/python -m pytest $(ARGS)

browser: ## Install Chromium, if there is none, for the tests of the report in a browser (Debian, Ubuntu; as root or with sudo)
	@command -v chromium || command -v chromium-headless-shell || command -v google-chrome || \
		{ sudo=$$(test "$$(id -u)" = 0 || echo sudo); $$sudo apt-get update -qq && \
		$$sudo apt-get install -qq --no-install-recommends chromium fonts-dejavu-core; }

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

bench: $(STAMP) ## Measure what must be fast, as ratios in one run; then time kernels and models on every route
	@set -f; red=0; $(BIN)/python -m actconform.bench || red=1; $(BIN)/actconform bench $(ARGS) || red=1; exit $$red

golden: $(STAMP) ## Verify the goldens, 16-bit tables included
	$(BIN)/actconform golden verify

selftest: $(STAMP) ## Find every planted fault, and accuse no healthy backend
	$(BIN)/actconform selftest $(ARGS)

detection: $(STAMP) ## The same, and write the table into README.md
	$(BIN)/actconform selftest --into README.md

selftest-peers: $(STAMP) ## The same faults under others' inputs and limits; ARGS='--into docs/detection.md' writes the table
	$(BIN)/python -m actconform_faulty.peers $(ARGS)

accuracy: $(STAMP) ## Measure exp, tanh, erf and their like in every library (ARGS='torch --toml' for one, as text for its register)
	$(BIN)/python -m actconform.accuracy $(ARGS)

stability: $(STAMP) ## Ten runs over threads and instruction sets: no verdict changes without a changed fact
	$(BIN)/python -m actconform.stability $(ARGS)

report: $(STAMP) ## Write the files of the last run anew (ARGS='--history DIR' adds lines over time)
	$(BIN)/actconform report $(ARGS)

nightly: $(STAMP) ## Every backend with the models of published size, bench, selftest; then merged, reported, compared with the last one
	@rm -rf nightly/parts nightly/beside
	@for backend in $(NIGHTLY_BACKENDS); do $(MAKE) --no-print-directory nightly-part BACKEND=$$backend || true; done
	@$(MAKE) --no-print-directory nightly-bench || true
	@$(MAKE) --no-print-directory nightly-selftest || true
	@$(MAKE) --no-print-directory nightly-collect

nightly-part: $(STAMP) ## One backend's part of it: BACKEND=torch
	$(BIN)/actconform run --full --backend $(BACKEND) --out nightly/parts/$(BACKEND) $(ARGS)

nightly-bench: $(STAMP) ## Its throughput
	$(BIN)/actconform bench --out nightly/beside $(ARGS)

nightly-selftest: $(STAMP) ## Its planted faults
	@mkdir -p nightly/beside
	$(BIN)/actconform selftest --json > nightly/beside/selftest.json

nightly-collect: $(STAMP) ## Its end: red where a backend is missing, something does not conform, or got worse since the last one
	@rm -rf nightly/now; mkdir -p nightly/parts nightly/beside nightly/history; red=0; \
	$(BIN)/actconform merge nightly/parts/*/report.json --out nightly/now $(addprefix --expect ,$(NIGHTLY_BACKENDS)) || red=1; \
	cp nightly/beside/*.json nightly/now || red=1; \
	$(BIN)/actconform report nightly/now --history nightly/history || red=1; \
	last=$$(ls -d nightly/history/*/ 2>/dev/null | tail -n 1); \
	if [ -n "$$last" ]; then \
		$(BIN)/actconform diff "$$last" nightly/now --html --out nightly/now/diff.html; \
		$(BIN)/actconform diff "$$last" nightly/now --markdown --out nightly/now/diff.md; \
		$(BIN)/actconform diff "$$last" nightly/now || red=1; \
	fi; \
	kept=nightly/history/$$(date -u +%Y-%m-%dT%H%M%SZ); \
	mkdir "$$kept" && cp nightly/now/report.json nightly/now/throughput.json "$$kept" || red=1; \
	exit $$red

nightly-summary: ## Print it for a job's page
	@cat nightly/now/summary.md; cat nightly/now/diff.md 2>/dev/null || true

docs: $(STAMP) ## Write the generated documents
	$(BIN)/actconform deviations document > docs/known-deviations.md
	$(BIN)/python -m actconform.report.schema > docs/report-schema.json

clean: ## Remove .venv and everything that was built
	rm -rf $(VENV) conform-out nightly build dist
