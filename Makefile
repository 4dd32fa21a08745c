# Everything a person does here. The virtual environment is made on first use; nothing outside the checkout is touched.
PYTHON ?=
PYTHONS := python3.11 python3.12 python3.13 python3
VENV := .venv
BIN := $(VENV)/bin
PATTERN ?=
ARGS ?=
BACKENDS ?=
NIGHTLY_BACKENDS := keras torch ort-cpu keras-xla keras-jax keras-torch torch-compile jax openvino onnx-reference onnx-reference-float64
STAMP := $(VENV)/installed
PLUGINS := $(addprefix plugins/actconform-,keras torch onnxruntime faulty jax openvino reference)

JAX2ONNX := jax2onnx flax equinox jaxtyping wadler_lindig treescope optax dm_pix einops chex toolz PyYAML msgpack

WORKS := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

.DEFAULT_GOAL := help
.PHONY: help install conform test browser emulators check format bench golden selftest detection selftest-peers accuracy stability emulate zoo architectures observed ratchet report docs dist clean \
	nightly nightly-part nightly-bench nightly-selftest nightly-killed nightly-floors nightly-install nightly-zoo nightly-architectures nightly-collect nightly-summary

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv with core, plugins and tools at pinned versions

$(STAMP): pyproject.toml constraints.txt $(addsuffix /pyproject.toml,$(PLUGINS))
	@# The first that runs: a name on PATH may be a shim for a version that is not there. What .venv was made with goes first.
	@for python in $(or $(PYTHON),$(wildcard $(BIN)/python) $(PYTHONS)); do \
		if "$$python" -c '$(WORKS)' 2>/dev/null; then took=$$python; break; fi; \
	done; \
	if [ -z "$$took" ]; then \
		echo "No Python 3.11, 3.12 or 3.13 that runs and has venv and pip, tried: $(or $(PYTHON),$(PYTHONS))." >&2; \
		echo "Install one (Debian, Ubuntu: apt install python3 python3-venv), or name it: make $(or $(MAKECMDGOALS),install) PYTHON=/path/to/python3.12" >&2; \
		exit 1; \
	fi; \
	"$$took" -c 'import sys; print("$(VENV) with Python", sys.version.split()[0], "of", sys.base_prefix)'; \
	[ "$$took" = $(BIN)/python ] || "$$took" -m venv $(VENV)
	@echo "Making $(VENV): downloads about 1.4 GB on Linux x86-64 (tensorflow 572 MB, onnxruntime-gpu 256 MB, torch 192 MB as CPU build,"
	@echo "jaxlib 85 MB, openvino 59 MB, the rest 190 MB), 4 GB unpacked. The index's default torch for Linux brings CUDA libraries of several GB on top: point"
	@echo "PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL to PyTorch's CPU builds to avoid that."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]" \
		$(patsubst %,-e '%',$(patsubst %keras,%keras[tensorflow],$(PLUGINS:%onnxruntime=%onnxruntime[default])))
	@# jax2onnx requires the CPU package of ONNX Runtime, which writes over the other one; what it needs beside that:
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps $(JAX2ONNX)
	@touch $@

conform: $(STAMP) ## Run the default matrix and print what differs (PATTERN='gelu-*' narrows it, BACKENDS=all widens it)
	@set -f; $(BIN)/actconform run $(PATTERN) $(addprefix --backend ,$(BACKENDS)) $(ARGS)

test: $(STAMP) ## Run the tests on all cores, an end-to-end run of the real frameworks among them (ARGS='-n 0 tests/cli': a part, in one process)
	@# A file's tests stay in one process, which makes its fixtures once. Each process imports every framework, once: about 1.6 GB.
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(ARGS)

browser: ## Install Chromium, if there is none, for the tests of the report in a browser (Debian, Ubuntu; as root or with sudo)
	@command -v chromium || command -v chromium-headless-shell || command -v google-chrome || \
		{ sudo=$$(test "$$(id -u)" = 0 || echo sudo); $$sudo apt-get update -qq && \
		$$sudo apt-get install -qq --no-install-recommends chromium fonts-dejavu-core; }

emulators: ## Install QEMU's user-mode emulators, if there are none, for `make emulate` and its test (Debian, Ubuntu; as root or with sudo)
	@{ command -v qemu-x86_64 && command -v qemu-aarch64; } || \
		{ sudo=$$(test "$$(id -u)" = 0 || echo sudo); $$sudo apt-get update -qq && \
		$$sudo apt-get install -qq --no-install-recommends qemu-user; }

check: $(STAMP) ## Format, lint, types, order of the packages, documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	@$(BIN)/actconform deviations document | diff -u docs/known-deviations.md - || (echo "docs/known-deviations.md is stale: make docs"; exit 1)
	@$(BIN)/python -m actconform.report.files.schema | diff -u docs/report-schema.json - || (echo "docs/report-schema.json is stale: make docs"; exit 1)

format: $(STAMP) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Measure what must be fast, as ratios in one run; then time kernels and models on every route
	@set -f; red=0; $(BIN)/python -m benchmarks || red=1; $(BIN)/actconform bench $(ARGS) || red=1; exit $$red

golden: $(STAMP) ## Verify the goldens, 16-bit tables included
	$(BIN)/actconform golden verify

selftest: $(STAMP) ## Find every injected fault, and accuse no healthy backend
	$(BIN)/actconform selftest $(ARGS)

detection: $(STAMP) ## The same, and write the table into docs/detection.md
	$(BIN)/actconform selftest --into docs/detection.md

selftest-peers: $(STAMP) ## The same faults under others' inputs and limits; ARGS='--into docs/detection.md' writes the table
	$(BIN)/python -m actconform_faulty.peers $(ARGS)

accuracy: $(STAMP) ## Measure exp, tanh, erf and their like in every library (ARGS='torch --toml' for one, as text for its register)
	$(BIN)/python -m actconform.accuracy $(ARGS)

stability: $(STAMP) ## Eleven runs over threads, instruction sets and TensorFlow's oneDNN: no verdict changes without a changed fact
	$(BIN)/python -m benchmarks.stability $(ARGS)

emulate: $(STAMP) ## ONNX Runtime on our graphs, on emulated processors; ARGS=sse for one: sse, avx2, arm64, arm64-sve
	@set -f; $(BIN)/python -m actconform.emulate $(ARGS)

zoo: $(STAMP) ## `actconform check` on trained models as published wheels have them, and with faults (ARGS='--into docs/zoo.md': the table)
	@set -f; $(BIN)/python -m benchmarks.zoo $(ARGS)

architectures: $(STAMP) ## `actconform check` on architectures in torch, Keras, transformers: every export, and faults (ARGS='--into docs/architectures.md')
	@set -f; $(BIN)/python -m benchmarks.architectures $(ARGS)

observed: $(STAMP) ## Keep what the last run's causes covered, in golden/observed.json (ARGS=DIR for another run)
	$(BIN)/actconform deviations observe $(ARGS)

ratchet: $(STAMP) ## Hold the last run against what was observed under equal facts: nothing worse, no cause that covers nothing
	$(BIN)/actconform deviations ratchet $(ARGS)

report: $(STAMP) ## Write the files of the last run anew (ARGS='--history FILE' adds lines over time)
	$(BIN)/actconform report $(ARGS)

nightly: $(STAMP) ## Every backend with the models of published size, bench, selftest; then merged, reported, compared with the last one
	@rm -rf nightly/parts nightly/beside
	@for backend in $(NIGHTLY_BACKENDS); do $(MAKE) --no-print-directory nightly-part BACKEND=$$backend || true; done
	@$(MAKE) --no-print-directory nightly-bench || true
	@$(MAKE) --no-print-directory nightly-selftest || true
	@red=0; for part in nightly-killed nightly-floors nightly-install nightly-zoo nightly-architectures nightly-collect; do $(MAKE) --no-print-directory $$part || red=1; done; exit $$red

nightly-part: $(STAMP) ## One backend's part of it: BACKEND=torch
	$(BIN)/actconform run --full --backend $(BACKEND) --out nightly/parts/$(BACKEND) $(ARGS)

nightly-bench: $(STAMP) ## Its throughput
	$(BIN)/actconform bench --out nightly/beside $(ARGS)

nightly-selftest: $(STAMP) ## Its injected faults
	@mkdir -p nightly/beside
	$(BIN)/actconform selftest --json > nightly/beside/selftest.json

FLOORS := nightly/floors
FLOOR_CASES := 'relu/*' 'gelu-erf/*' 'silu/*' 'softmax/*' 'sparsemax/*' 'mlp-relu/*'

nightly-floors: $(STAMP) ## The oldest versions that core and the plugins of runtimes say they take, in an environment of their own
	@rm -rf $(FLOORS); mkdir -p $(FLOORS)
	$(BIN)/python -m actconform.lowest pyproject.toml $(addsuffix /pyproject.toml,$(PLUGINS)) > $(FLOORS)/lowest.txt
	$(BIN)/python -m venv $(FLOORS)/venv
	$(FLOORS)/venv/bin/python -m pip install --quiet --disable-pip-version-check -c $(FLOORS)/lowest.txt -e ".[golden]" \
		-e "plugins/actconform-onnxruntime[cpu]" -e plugins/actconform-openvino -e plugins/actconform-reference
	@set -f; $(FLOORS)/venv/bin/actconform run $(FLOOR_CASES) --dtype f32 --route authored+ort-cpu --route authored+openvino \
		--route authored+onnx-reference --out $(FLOORS)/run $(ARGS)

nightly-install: dist ## Its built packages, installed with downloads in an empty environment of each Python that runs here
	$(BIN)/python -m benchmarks.installing dist $(ARGS)

nightly-killed: $(STAMP) ## Its runs of real frameworks that are killed in the midst of cases, and resumed
	ACTCONFORM_TEST_REAL=1 $(BIN)/python -m pytest tests/test_killed.py

nightly-zoo: $(STAMP) ## Its trained models, as they are on two runtimes, and with faults
	$(BIN)/python -m benchmarks.zoo --runtime ort-cpu --runtime openvino

nightly-architectures: $(STAMP) ## Its architectures at three instruction sets of the frameworks, and with faults
	$(BIN)/python -m benchmarks.architectures --instructions "as the machine is" --instructions AVX2 --instructions SSE4.1

nightly-collect: $(STAMP) ## Its end: red where a backend is missing, something does not conform, or got worse since the last one
	@rm -rf nightly/now; mkdir -p nightly/parts nightly/beside nightly/history; red=0; \
	$(BIN)/actconform merge nightly/parts/*/report.json --out nightly/now $(addprefix --expect ,$(NIGHTLY_BACKENDS)) || red=1; \
	cp nightly/beside/*.json nightly/now || red=1; \
	$(BIN)/actconform history add nightly/now --store nightly/history/history.jsonl || red=1; \
	$(BIN)/actconform report nightly/now --history nightly/history/history.jsonl || red=1; \
	if [ -d nightly/history/last ]; then \
		$(BIN)/actconform diff nightly/history/last nightly/now --html --out nightly/now/diff.html; \
		$(BIN)/actconform diff nightly/history/last nightly/now --markdown --out nightly/now/diff.md; \
		$(BIN)/actconform diff nightly/history/last nightly/now || red=1; \
	fi; \
	rm -rf nightly/history/last; \
	mkdir nightly/history/last && cp nightly/now/report.json nightly/now/throughput.json nightly/history/last || red=1; \
	exit $$red

nightly-summary: ## Print it for a job's page
	@cat nightly/now/summary.md; cat nightly/now/diff.md 2>/dev/null || true

dist: $(STAMP) ## Build the packages of core and plugins, wheels and source, into dist/
	@rm -rf dist
	@for package in . $(sort $(wildcard plugins/*)); do \
		(cd $$package && $(abspath $(BIN))/python -m hatchling build --directory $(abspath dist)) || exit 1; \
	done

SITE := build/site

docs: $(STAMP) ## Write the generated documents, build the site of all documents (build/site), and check its links
	$(BIN)/actconform deviations document > docs/known-deviations.md
	$(BIN)/python -m actconform.report.files.schema > docs/report-schema.json
	$(BIN)/python tests/onnx_graphs/old_opsets.py docs/gradients.md
	$(BIN)/python -m sphinx -q -W --keep-going -j auto -c docs . $(SITE)
	@echo "$(SITE)/index.html"
	@$(BIN)/python -m sphinx -q -b linkcheck -D nb_execution_mode=off -c docs . build/links || echo "Some links to other sites did not answer, or there is no network: build/links/output.txt"

clean: ## Remove .venv and everything that was built
	rm -rf $(VENV) conform-out emulate-out zoo-out architectures-out nightly build dist
