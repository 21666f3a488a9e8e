# Few verbs at the door. `make` alone lists them; a line's text after ## is its help.
# Everything runs in .venv. What is installed there is remembered in stamps, so a second call is instant.

SHELL       := /bin/bash
VENV        ?= .venv
CONSTRAINTS ?= constraints/ci.txt
PY          := $(VENV)/bin/python
PIP         := $(PY) -m pip --disable-pip-version-check install --quiet -c $(CONSTRAINTS)
# glibc gives large blocks back and faults them in again at every step; kept, an embedder step takes 0.68 of the time
ALLOCATOR   := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_TOP_PAD_=1000000000
TEST        := OMP_NUM_THREADS=2 $(PY) -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup run test test-long check bench soak proto train-and-publish clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.dev ## install everything to develop, train and serve on a CPU into .venv

run: $(VENV)/.serve ## serve in the foreground with only what serving needs; FACET_* in the environment configures it
	@exec $(VENV)/bin/facet serve

test: $(VENV)/.dev ## the tests (10 minutes at most)
	$(TEST)

test-long: $(VENV)/.dev ## the slow tests: kill -9 sweep, PostgreSQL, long properties (45 minutes at most)
	$(TEST) -m slow

check: $(VENV)/.dev ## format, lint, types and floors
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/.dev ## every benchmark; results go to benchmarks/results (no data: those of the detector are left out)
	$(PY) -m benchmarks.gallery
	$(PY) -m benchmarks.embedder_backends
	$(PY) -m benchmarks.pipeline
	$(PY) -m benchmarks.detector
	$(PY) -m benchmarks.near_faces
	OMP_NUM_THREADS=1 $(PY) -m benchmarks.training_throughput

soak: $(VENV)/.dev ## 20,000 identify calls with pictures of many sizes; fails if memory grows by more than 5 %
	$(PY) -m benchmarks.soak

proto: $(VENV)/.dev ## regenerate the gRPC stubs from proto/facet/v1
	$(PY) -m grpc_tools.protoc -Iservice/grpc/generated=proto --python_out=. --pyi_out=. --grpc_python_out=. \
	    proto/facet/v1/*.proto

train-and-publish: $(VENV)/.dev ## data → embedder, detector, evaluation, calibration → a published bundle (no data: a drawn set)
	$(ALLOCATOR) $(PY) -m training train-and-publish

clean: ## remove .venv and the caches; data, runs and models stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build *.egg-info
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# a shim may exist for a version that is not installed, and a Debian python may lack venv: so each is asked
$(PY):
	@for python in python3.11 python3.12 python3.13 python3 python; do \
	    if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "setting up $(VENV) with $$($$python --version)"; exec $$python -m venv $(VENV); \
	    fi; \
	done; echo "Facet needs Python 3.11 or newer with the venv module (Debian: apt install python3-venv)" >&2; exit 1

$(VENV)/.serve: pyproject.toml $(CONSTRAINTS) | $(PY)
	@echo "installing what serving needs (about a minute)"
	@$(PIP) -e '.[cpu]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(CONSTRAINTS) | $(PY)
	@echo "installing what serving, training and developing need (a few minutes)"
	@$(PIP) -e '.[cpu,training,dev]'
	@$(PIP) --no-deps facenet-pytorch==2.5.3 # its MTCNN weights alone: what it asks for would replace torch
	@touch $(VENV)/.serve $@
