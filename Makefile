# Every recipe works from a fresh clone: it creates .venv first where that is missing.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: quickstart schema data test slow nightly memory browser gpu notebooks site lint types docs package matrix bench figures findings auto-table split clean
.DEFAULT_GOAL := quickstart

$(BIN)/fedmem: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --editable .
	$(BIN)/fedmem schema --out scenarios/scenario.schema.json
	@touch $@

# `|`: each installation writes the script again, so that its date says nothing.
$(VENV)/.test: pyproject.toml | $(BIN)/fedmem
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --editable '.[test]'
	@touch $@

# What editors complete scenarios from. It follows from the components, so it is made and not committed.
schema: $(BIN)/fedmem
	$(BIN)/fedmem schema --out scenarios/scenario.schema.json

quickstart: $(BIN)/fedmem
	$(BIN)/fedmem run scenarios/quickstart.yaml

# Tests that read published data are skipped where these were not fetched; what is there is not fetched again.
data: $(BIN)/fedmem
	for name in fashion_mnist mnist5k adult shakespeare sotu; do $(BIN)/fedmem fetch $$name || exit 1; done

# The commands and the code of the README are run by `make docs`.
test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal --ignore tests/docs

slow: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m '(slow or statistical or flower) and not nightly'

# Continues where the last piece ended. Commit tests/nightly.csv afterwards.
HOURS ?= 1
nightly: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.nightly --hours $(HOURS)

memory: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m memory

# Skipped without a GPU; FEDMEM_REQUIRE_GPU=1 make gpu fails then. Figures: python -m benchmarks.gpu
gpu: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m gpu

$(VENV)/.docs: pyproject.toml | $(BIN)/fedmem
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --editable '.[docs]'
	@touch $@

# The jobs of docs/jobs as notebooks, run; make notebooks NAMES=01-quickstart runs one. `make site` then shows their outputs.
NAMES ?=
notebooks: $(VENV)/.docs
	OMP_NUM_THREADS=1 $(BIN)/python docs/notebooks.py build/notebooks $(NAMES)

# The documentation as a site, in build/site. Needs no network; a warning is an error.
site: $(VENV)/.docs
	$(BIN)/python docs/stage.py build/site-source
	$(BIN)/python -m sphinx -q -W --keep-going --fresh-env -c docs -b html build/site-source build/site

# Pages in headless Chromium, which has to be on the path (Debian: apt-get install chromium).
browser: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.test
	$(BIN)/mypy

docs: $(VENV)/.test
	$(BIN)/python -m pytest tests/docs

# What a release consists of, in dist/. Tests of wheels, which build their own, are in `make slow`.
package: $(VENV)/.test schema
	rm -rf dist
	$(BIN)/python -m hatchling build --directory dist
	$(BIN)/python -m twine check --strict dist/*

# The tests that touch Flower, with the oldest and the newest version that pyproject.toml allows. Each version lies in a folder
# of its own and is found before the installed one. Tests that start Flower's own runtime take long: RUNTIME= runs them too.
RUNTIME ?= and not flower
FLOWER ?= 1.38.0 1.42.0
FLOWER_TESTS = tests/engines tests/observation tests/apps tests/strategies tests/guards/test_flower_range.py \
	tests/contracts/test_strategy.py tests/contracts/test_flower_strategy_adapter.py tests/execution/test_process_state.py \
	tests/scenario/test_flower_parameters.py
matrix: $(VENV)/.test
	for version in $(FLOWER); do \
		$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --no-deps --upgrade \
			--target $(abspath $(VENV))/flower/$$version flwr==$$version || exit 1; \
		PYTHONPATH=$(abspath $(VENV))/flower/$$version OMP_NUM_THREADS=1 \
			$(BIN)/python -m pytest -n auto -m 'not slow and not statistical and not nightly $(RUNTIME)' $(FLOWER_TESTS) || exit 1; \
	done

# Peers are installed into benchmarks/.venvs; more options: python -m benchmarks.bench --help
bench: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.precision
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.backends

# All figures of the experiments and the first one of the README, from their committed tables. Nothing is trained.
figures: $(BIN)/fedmem
	$(BIN)/python -m experiments.figures

# All findings again with other seeds, in pieces of HOURS; the same command continues. Tables go to build/findings.
findings: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.findings.rerun --jobs 2 --hours $(HOURS)

auto-table: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.auto

split: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.split

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
