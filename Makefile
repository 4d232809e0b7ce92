# Angel's Share: `make help` lists the targets. Each does the set-up that it needs.

PYTHON ?= python3
# Index from which pip installs torch. Empty: the configured one, whose Linux build includes CUDA
# (gigabytes).
#   CPU only:   make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu
#   CUDA 13.0:  make setup TORCH_INDEX=https://download.pytorch.org/whl/cu130
TORCH_INDEX ?=
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup test test-all test-lowest test-ray check lint types format docs demo first online bench bench-peers gpu gpu-check tables study \
    study-cost study-wants smaller smaller-wants mutants wheel clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'
	@echo
	@echo '  PYTHON=python3.12   use another interpreter (3.11 or newer)'
	@echo '  TORCH_INDEX=URL     install another build of torch (see the top of the Makefile)'

setup: $(READY)  ## create .venv with the tested versions; redone only when its inputs change

$(READY): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON) is missing or older than Python 3.11: choose another with PYTHON=..."; exit 2; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	    $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	    --editable '.[dev]'
	@touch $@

test: $(READY)  ## run the fast tests, offline
	$(RUN) -m pytest -n $(JOBS) -m 'not slow'

test-all: $(READY)  ## run all tests, including the slow ones
	$(RUN) -m pytest -n $(JOBS)

test-lowest:  ## run the fast tests with the oldest supported versions, in .venv-lowest
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt \
	    $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	.venv-lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable '.[dev]'
	.venv-lowest/bin/python -m pytest -n $(JOBS) -m 'not slow'

test-ray:  ## run the tests of sweeps on Ray, on a cluster of two nodes on this machine, in .venv-ray
	test -x .venv-ray/bin/python || $(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install --quiet --constraint constraints.txt \
	    $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	.venv-ray/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,ray]'
	.venv-ray/bin/python -m pytest tests/eval_harness/sweep/test_ray.py

check: lint types docs test  ## format, lint, types, docs and fast tests: must pass before a change lands

lint: $(READY)  ## check format and lint rules with ruff
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .

types: $(READY)  ## check types with mypy, strict
	$(RUN) -m mypy

format: $(READY)  ## format the code and apply ruff's fixes
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

docs: $(READY)  ## build the documentation as a site, in docs/_build/html; no network; a warning is an error
	$(RUN) -m sphinx --fail-on-warning --keep-going --fresh-env --quiet --builder html docs docs/_build/html

demo: $(READY)  ## show what distillation keeps, from nothing, in ./demo; no network, 3 to 6 minutes
	$(RUN) examples/demo.py demo

first: $(READY)  ## distil a first student on Python's own documentation, in ./first; no network
	$(RUN) examples/first_distil.py first

online: $(READY)  ## try the real Hub, GPUs, MPS: each passed, failed or not tried; logs in ./online
	$(RUN) examples/online.py online

bench: $(READY)  ## measure speed and memory against plain implementations; with DISTIL_DATA, on real data too
	$(RUN) -m benchmarks.distil_step --size mini
	$(RUN) -m benchmarks.distil_step --size mini --restrict
	$(RUN) -m benchmarks.distil_step --size base
	$(RUN) -m benchmarks.trainer_overhead
	$(RUN) -m benchmarks.corpus_prep
	$(RUN) -m benchmarks.tables_speed
	$(RUN) -m benchmarks.growth
	test -z "$$DISTIL_DATA" || $(RUN) -m benchmarks.fine_tune
	test -z "$$DISTIL_DATA" || $(RUN) -m benchmarks.sweep_rate
	test -z "$$DISTIL_DATA" || $(RUN) -m benchmarks.short_runs
	test -z "$$DISTIL_DATA" || $(RUN) -m benchmarks.squad_speed
	test -z "$$DISTIL_DATA" || $(RUN) -m benchmarks.squad_training

gpu: $(READY)  ## measure this machine's GPU in 8 minutes, results in ./gpu-results; no network
	$(RUN) -m benchmarks.gpu

bench-peers: $(READY)  ## compare a step with what others wrote, each installed in .peers (4 GB); on an idle machine, 15 minutes
	$(RUN) -m benchmarks.peers --torch_index "$(TORCH_INDEX)"
	$(RUN) -m benchmarks.distil_step --peers --check
	$(RUN) -m benchmarks.distil_step --peers --size mini --json .peers/mini-full.json
	$(RUN) -m benchmarks.distil_step --peers --size mini --ragged --json .peers/mini-ragged.json
	$(RUN) -m benchmarks.distil_step --peers --size mini --keep_memory --json .peers/mini-kept.json
	$(RUN) -m benchmarks.distil_step --peers --size base --json .peers/base-full.json

gpu-check: $(READY)  ## compare this machine's GPU with float64 on the CPU; no network
	$(RUN) -m benchmarks.gpu --check

tables: $(READY)  ## make the tables, pages and charts of the results published here again, byte for byte
	$(RUN) examples/published.py results

# Table 4 from a teacher and a corpus; DISTIL= and GLUE= are further flags of the two commands.
# DATA and OUT are one path each. The others are split into words by the shell, TEACHER and CORPUS
# into one or more: quote those with spaces, CORPUS='"my text.txt" more.txt'.
STUDENTS := none no-ce no-cos no-mlm random-init
ifneq ($(DATA),hub)
STUDY_DATA = --data_dir "$$DATA"
endif
export DATA OUT DISTIL GLUE

study: study-cost  ## make Table 4: five students, GLUE; TEACHER= CORPUS= DATA= OUT=; rerun to continue
	$(RUN) run_pretrain_distill.py --teacher $(TEACHER) --corpus $(CORPUS) --output_dir "$$OUT" \
	    --ablation all --resume_from_checkpoint $(DISTIL)
	$(RUN) run_glue.py --model $(STUDENTS:%="$$OUT"/%) $(STUDY_DATA) \
	    --results_dir "$$OUT/results" $(GLUE)
	@cat "$$OUT/results/table4.md"

study-cost: study-wants $(READY)  ## count what `make study` will cost: steps, tokens, runs
	@$(RUN) examples/study_cost.py --teacher $(TEACHER) --corpus $(CORPUS) --data "$$DATA" \
	    --out "$$OUT" --distil="$$DISTIL" --glue="$$GLUE"

study-wants:
	@$(foreach name,TEACHER CORPUS DATA OUT,$(if $($(name)),,echo "make study: $(name)= is missing, as \
	in: make study TEACHER=bert CORPUS=wiki.txt DATA=glue_data OUT=study (DATA=hub: from the Hub)" >&2; exit 2;)):

smaller: smaller-wants $(READY)  ## from a teacher to int8: TEACHER= TASK= DATA= OUT=; says the cost before; rerun to continue
	$(RUN) examples/smaller.py "$$OUT" --teacher "$$TEACHER" --task "$$TASK" \
	    $(if $(filter hub,$(DATA)),,--data_dir "$$DATA") $(SMALLER)

smaller-wants:
	@$(foreach name,TEACHER TASK DATA OUT,$(if $($(name)),,echo "make smaller: $(name)= is missing, as in: \
	make smaller TEACHER=bert TASK=sst2 DATA=glue_data OUT=smaller (DATA=hub: from the Hub)" >&2; exit 2;)):

MUTANTS ?= 400
SEED ?= 13

mutants: $(READY)  ## break the code in MUTANTS=400 small ways, on a copy: which do the tests notice?
	$(RUN) tests/mutants.py --mutants $(MUTANTS) --seed $(SEED)

wheel:  ## build the wheel, install it in a bare environment, use it outside of the checkout
	$(PYTHON) tests/wheel.py --torch-index "$(TORCH_INDEX)" $(if $(AUDIT),--audit "$(AUDIT)")

clean:  ## remove environments, caches, ./demo, ./first and ./online; results stay
	rm -rf demo first online docs/_build $(VENV) .venv-lowest .venv-ray .peers .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
