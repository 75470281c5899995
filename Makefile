# Two commands for a newcomer: `make demo` and `make test`. Both create .venv in the checkout.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.PHONY: demo test test-clusters lint readme evaluate docs notebook speed clean

demo: $(VENV)/installed
	$(BIN)/bench run model=sew reg=spikepen

test: $(VENV)/installed-dev lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# Real clusters of Ray and Slurm on this machine; Slurm is installed from Debian if it is not there, as root.
test-clusters: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m cluster tests/cluster

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Tables in README.md and in docs follow from the registry and from the submitted records, the picture from a run.
readme: $(VENV)/installed
	$(BIN)/bench list --into docs/catalog.md
	$(BIN)/python docs/methods.py
	$(BIN)/bench report --into docs/methods
	$(BIN)/bench report --into README.md
	$(BIN)/bench report --into docs/results.md
	$(BIN)/python docs/picture.py

# A regularizer of your own as the leaderboard has the others: small MNIST, both rulesets. `make evaluate REG=name`, with
# its file in bench/regularizers/ or named in $$BENCH_PLUGINS; two together are REG=[a,b].
evaluate: $(VENV)/installed
	@test -n "$(REG)" || { echo "Which regularizer? make evaluate REG=name" >&2; exit 2; }
	$(BIN)/bench tune suite/small workload=mnist-1k "reg=$(REG)" trials=8 seeds=5 logger=none
	$(BIN)/bench report

# The documentation as a site, with search, in build/site: open it by `python -m http.server -d build/site`.
docs: $(VENV)/installed-dev
	$(BIN)/python docs/site.py
	$(BIN)/zensical build --strict

# What the cells of docs/first-steps.ipynb print and draw.
notebook: $(VENV)/installed-dev
	$(BIN)/python docs/notebook.py

# Every regularizer beside none on three small networks, and the start of a run: on a machine that does nothing else, some
# ten minutes a network on two cores.
speed: $(VENV)/installed-dev
	for network in cnn sew convmixer; do $(BIN)/bench speed model=$$network reg=all --out reports/speed || exit; done
	$(BIN)/bench speed startup --out reports/speed

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 demo" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing into $(VENV): a few minutes, most of it PyTorch"
	$(PIP) --editable .
	@touch $@

$(VENV)/installed-dev: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing into $(VENV): a few minutes, most of it PyTorch"
	$(PIP) --editable '.[dev]'
	@touch $(VENV)/installed $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
