# Verbs of carbseg; each sets up what it needs. Variables: DATASET, DATA_ROOT, URL, CLIP, OUT, SEEDS, DEVICE, ROUNDS,
# SEED, ARGS.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CARBSEG := $(BIN)/python -m pipeline

DATASET ?= toy
SEEDS ?= 3
DEVICE ?= auto
ROUNDS ?= 10
# One word for the shell, whatever a folder is called; a leading ~/ is home, which not every shell expands after =.
shell_word = '$(subst ','\'',$(patsubst ~/%,$(HOME)/%,$(1)))'
option = $(if $(2),$(1) $(call shell_word,$(2)))
DATA = --dataset $(call shell_word,$(DATASET)) $(call option,--data-root,$(DATA_ROOT)) $(call option,--clip,$(CLIP))
OPTIONS = $(DATA) $(call option,--out,$(OUT)) $(ARGS)
# Shorter than the preset: a table that means the same within minutes.
DEMO := --set train.steps=600 --set train.warmup_steps=170 --set augment.crop_height=128 --set augment.crop_width=256
QUICK = $(if $(filter toy,$(DATASET)),$(DEMO))
PACKAGES := pipeline labelgen segtrain evaluation
WORKERS := --numprocesses logical --maxprocesses 8 --dist loadgroup

.PHONY: setup help demo data pseudolabels train eval report explore ablation engines iterate noise test test-fast chaos bench check format clean

setup: $(STAMP)  ## carbseg and what it needs, into .venv

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup  ## toy scenes from nothing to a table and pictures, on the test split
	$(CARBSEG) run --dataset toy --out $(call shell_word,$(or $(OUT),runs/demo)) --split test $(DEMO) $(ARGS)

data: setup  ## fetch a data set into data/DATASET, or say where to get it
	$(CARBSEG) datasets fetch $(call shell_word,$(DATASET)) $(call shell_word,$(or $(DATA_ROOT),data/$(DATASET))) $(call option,--url,$(URL))

pseudolabels: setup  ## what CLIP sees in every patch, cached: OUT/labels/train.zarr
	$(CARBSEG) labels $(OPTIONS)

train: setup  ## a student of the pseudo-labels
	$(CARBSEG) train $(OPTIONS)

eval: setup  ## scores of pseudo-labels and students against truth: OUT/metrics.md
	$(CARBSEG) evaluate $(OPTIONS)

report: setup  ## evaluate, and one HTML page that shows where the noise is: OUT/report.html
	$(CARBSEG) report $(OPTIONS)

explore: setup  ## a local page: change words and tags, and see the masks change; see docs/explorer.md
	$(CARBSEG) explore $(if $(OUT),$(call shell_word,$(OUT))) $(DATA) $(ARGS)

ablation: setup  ## the paper's Table 1: every kind of student, SEEDS times
	$(CARBSEG) ablation $(OPTIONS) --seeds $(SEEDS)

engines: setup  ## every label engine, its pseudo-labels and students, in one table; see docs/engines.md
	$(CARBSEG) engines compare $(QUICK) $(OPTIONS)

iterate: setup  ## students teach the next round's students; see docs/training.md
	$(CARBSEG) iterate $(QUICK) $(OPTIONS)

noise: setup  ## in which kinds of noise CARB pays: tables and a plot; see docs/noise.md
	$(BIN)/python -m benchmarks.noise $(ARGS)

test: setup  ## everything, on all cores
	$(BIN)/python -m pytest $(WORKERS)

test-fast: setup  ## for the edit loop: without fresh processes and browsers
	$(BIN)/python -m pytest $(WORKERS) -m "not slow"

chaos: setup  ## ROUNDS random faults in real runs, from SEED on, counted as Markdown; see docs/trust.md
	$(BIN)/python -m tests.faults --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))

bench: setup  ## speed and agreement, as Markdown; DEVICE=cuda measures a GPU, and only what one changes
	$(BIN)/python -m benchmarks.labels --device $(DEVICE)
	$(BIN)/python -m benchmarks.engines --device $(DEVICE)
	$(BIN)/python -m benchmarks.training --device $(DEVICE)
	$(BIN)/python -m benchmarks.scaleout --device $(DEVICE)
ifneq ($(DEVICE),cuda)
	$(BIN)/python -m benchmarks.foundation
	$(BIN)/python -m benchmarks.scores
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.explorer
	$(BIN)/python -m benchmarks.tests $(WORKERS)
endif

check: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES)

format: setup  ## let ruff correct and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv, and all of runs and data
	rm -rf $(VENV) runs data
