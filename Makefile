# make train: set up and run the main job on the embedded default. make test: all checks.
# make docs: the site.
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
RUN := runs/synthetic
# Test processes; most of a test's time is compiling, which one core does.
JOBS ?= 2

.PHONY: train test lint docs clean

train: .venv/run
	$(BIN)/python -m launch.train --config=configs/contrastive_margin_synthetic.py --workdir=$(RUN)
	$(BIN)/python -m launch.convert --workdir=$(RUN) --to=torch --out=$(RUN)/exported

test: .venv/test lint
	$(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder

lint: .venv/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m launch.reproduce --check

# The site, in site/: the notebooks are run, and their pictures shown.
docs: .venv/docs
	RUN_NOTEBOOKS=true $(BIN)/mkdocs build --strict

.venv/bin/pip:
	$(PYTHON) -m venv .venv

# torch comes first: on Linux the plain name may bring several GB of CUDA (TORCH=torch takes it).
.venv/run: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable '.[torch]'
	touch $@

.venv/test: .venv/run
	$(BIN)/pip install --quiet --editable '.[test,torch,onnx,review,serve]'
	touch $@

.venv/docs: .venv/run
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv .jax_cache runs site
