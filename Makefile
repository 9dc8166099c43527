# Two commands need nothing but python3 (with its venv module) and make: quickstart and test.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-mxnet lint bench clean

help:
	@echo "make quickstart   data, 2-rank training, verification, ONNX: a few minutes on a CPU"
	@echo "make test         everything CI runs: ruff, mypy, pytest"
	@echo "make test-mxnet   record files against MXNet 1.9.1 itself, in .venv-mxnet (a download of 60 MB)"
	@echo "make lint         ruff and mypy only"
	@echo "make bench        all benchmarks, half an hour: docs/benchmarks.md; beside ARCFACE_TORCH=DIR where that is set"
	@echo "make clean        remove .venv and caches; data/ and work_dirs/ stay"

quickstart: $(VENV)/.run
	$(RUN) -m tools.quickstart

# One process a core, each with one thread: threads of OpenMP that wait for each other made the suite take more than
# three times as long. The tests of a file stay in one process, which shares its pool of ranks.
test: lint
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --dist loadfile

test-mxnet: $(VENV)/.dev $(VENV)-mxnet/.run
	MXNET_PYTHON=$(VENV)-mxnet/bin/python $(RUN) -m pytest tests/mxnet_peer

lint: $(VENV)/.dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(VENV)/.run
	$(RUN) -m benchmarks.head
	$(RUN) -m benchmarks.head --plain-memory
	$(RUN) -m benchmarks.head --heads all
	$(RUN) -m benchmarks.tammes
	$(RUN) -m benchmarks.growth
	$(RUN) -m benchmarks.records
	$(RUN) -m benchmarks.record_shuffle
	$(RUN) -m benchmarks.record_memory
	$(RUN) -m benchmarks.order
	$(RUN) -m benchmarks.backbone_variants
	$(RUN) -m benchmarks.whole_run
	$(RUN) -m benchmarks.verification
	$(RUN) -m benchmarks.start
	test ! -d work_dirs/quickstart || $(RUN) -m benchmarks.onnx --model work_dirs/quickstart
	$(RUN) -m benchmarks.saving
	$(RUN) -m benchmarks.scaling_model --measure
	$(RUN) -m benchmarks.long_run
	$(RUN) -m benchmarks.long_run --ranks 2
	$(RUN) -m benchmarks.gpu
	$(RUN) -m benchmarks.report

clean:
	rm -rf $(VENV) $(VENV)-mxnet .mypy_cache .ruff_cache .pytest_cache

# A stamp is written only after pip succeeded, so an interrupted installation is taken up again.
$(VENV)/.run: requirements.txt | $(VENV)/bin/pip
	$(RUN) -m pip install --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements.txt requirements-dev.txt | $(VENV)/bin/pip
	$(RUN) -m pip install --disable-pip-version-check -r requirements-dev.txt
	@touch $@ $(VENV)/.run

# MXNet is retired and cannot live beside numpy 2.
$(VENV)-mxnet/.run: | $(VENV)/bin/pip
	$(PYTHON) -m venv $(VENV)-mxnet
	$(VENV)-mxnet/bin/python -m pip install --disable-pip-version-check mxnet==1.9.1 numpy==1.23.5
	@touch $@

$(VENV)/bin/pip:
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found. Debian, Ubuntu: sudo apt install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: Python 3.10 or newer is needed, $(PYTHON) is $$($(PYTHON) -V). Name another: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) lacks its venv module. Debian, Ubuntu: sudo apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
