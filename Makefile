# Angel's Share: `make help` says what there is. Every target does the set-up it needs.

PYTHON ?= python3
# Where pip finds torch. Empty: the configured index, whose Linux build holds CUDA (gigabytes).
#   CPU only:   make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu
#   CUDA 13.0:  make setup TORCH_INDEX=https://download.pytorch.org/whl/cu130
TORCH_INDEX ?=
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup test test-all test-lowest check lint types format demo first bench tables study study-cost \
    study-wants clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' \
	    | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done
	@echo
	@echo '  PYTHON=python3.12   another interpreter (3.11 or newer)'
	@echo '  TORCH_INDEX=URL     another build of torch, see the top of the Makefile'

setup: $(READY)  ## make .venv with the tested versions; again only when its inputs change

$(READY): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON) is older than Python 3.11: name another one with PYTHON=..."; exit 2; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	    $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	    --editable '.[dev]'
	@touch $@

test: $(READY)  ## the fast tests, offline
	$(RUN) -m pytest -n $(JOBS) -m 'not slow'

test-all: $(READY)  ## all tests, the slow ones too
	$(RUN) -m pytest -n $(JOBS)

test-lowest:  ## all fast tests with the oldest versions that pyproject.toml allows, in a venv of their own
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt \
	    $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	.venv-lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable '.[dev]'
	.venv-lowest/bin/python -m pytest -n $(JOBS) -m 'not slow'

check: lint types test  ## format, lint, types, tests: what must be green before a change lands

lint: $(READY)  ## ruff: format and rules
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .

types: $(READY)  ## mypy, strict, on the packages
	$(RUN) -m mypy

format: $(READY)  ## put the code into the one format
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

demo: $(READY)  ## from nothing to four tables and the report, in ./demo, no network: five to six minutes
	$(RUN) examples/demo.py demo

first: $(READY)  ## a first distillation on Python's own documentation, in ./first, no network
	$(RUN) examples/first_distil.py first

bench: $(READY)  ## speed and memory against a textbook implementation, side by side (ten minutes or so)
	$(RUN) -m benchmarks.distil_step --size mini
	$(RUN) -m benchmarks.distil_step --size mini --restrict
	$(RUN) -m benchmarks.distil_step --size base
	$(RUN) -m benchmarks.trainer_overhead
	$(RUN) -m benchmarks.corpus_prep
	$(RUN) -m benchmarks.tables_speed
	test -z "$$DISTIL_DATA" || $(RUN) -m benchmarks.fine_tune
	test -z "$$DISTIL_DATA" || $(RUN) -m benchmarks.sweep_rate
	test -z "$$DISTIL_DATA" || $(RUN) -m benchmarks.squad_speed
	test -z "$$DISTIL_DATA" || $(RUN) -m benchmarks.squad_training

tables: $(READY)  ## Tables 1-4 from the results that are there
	$(RUN) -m eval_harness tables

# Table 4 from a teacher and a corpus; DISTIL= and GLUE= are further flags of the two commands.
# DATA and OUT are one path each. The others are words of a shell, TEACHER and CORPUS one or more:
# what holds a blank is quoted, CORPUS='"my text.txt" more.txt'.
STUDENTS := none no-ce no-cos no-mlm random-init
ifneq ($(DATA),hub)
STUDY_DATA = --data_dir "$$DATA"
endif
export DATA OUT DISTIL GLUE

study: study-cost  ## Table 4: five students, GLUE; TEACHER= CORPUS= DATA= OUT=; the same again goes on
	$(RUN) run_pretrain_distill.py --teacher $(TEACHER) --corpus $(CORPUS) --output_dir "$$OUT" \
	    --ablation all --resume_from_checkpoint $(DISTIL)
	$(RUN) run_glue.py --model $(STUDENTS:%="$$OUT"/%) $(STUDY_DATA) \
	    --results_dir "$$OUT/results" $(GLUE)
	@cat "$$OUT/results/table4.md"

study-cost: study-wants $(READY)  ## what that will cost, counted: steps, tokens, runs
	@$(RUN) examples/study_cost.py --teacher $(TEACHER) --corpus $(CORPUS) --data "$$DATA" \
	    --out "$$OUT" --distil="$$DISTIL" --glue="$$GLUE"

study-wants:
	@$(foreach name,TEACHER CORPUS DATA OUT,$(if $($(name)),,echo "make study: $(name)= is missing, as \
	in: make study TEACHER=bert CORPUS=wiki.txt DATA=glue_data OUT=study (DATA=hub: the Hub's)" >&2; exit 2;)):

clean:  ## everything that was made here; results stay
	rm -rf demo first $(VENV) .venv-lowest .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
