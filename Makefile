# Everything a newcomer needs: make demo, make test. The environment is made once in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help demo test bench study lint build

help:
	@echo "make demo    forget eight people, attack the result, write demo/report.html"
	@echo "make test    the tests of the gate"
	@echo "make bench   what engine, evaluation, guards and gateway cost (some half an hour)"
	@echo "make study   the slow studies (minutes to hours)"
	@echo "make lint    ruff and mypy"
	@echo "make build   wheel and source archive in dist/"

# torch comes first and alone, so that the resolver keeps the build that is already chosen.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/expunge demo --out demo

test: $(READY)
	$(BIN)/python -m pytest -m "not slow and not gpu" -n 2 --dist worksteal

bench: $(READY)
	$(BIN)/python benches/engine.py
	$(BIN)/python benches/evaluation.py
	$(BIN)/python benches/guards.py
	$(BIN)/python benches/evasions.py
	$(BIN)/python benches/gateway.py

study: $(READY) bench
	$(BIN)/python -m pytest -m slow --timeout 7200
	$(BIN)/python benches/baselines.py
	$(BIN)/python benches/stop_and_settle.py
	$(BIN)/python benches/estimate.py
	$(BIN)/python benches/audit_cost.py
	$(BIN)/python benches/audit_zoo.py
	$(BIN)/python benches/path.py
	$(BIN)/python benches/coreset.py
	$(BIN)/python benches/optimisation.py $(if $(TOFU),--tofu $(TOFU))
	$(BIN)/python benches/optimisation_studies.py
	$(BIN)/python benches/representation_editing_rl.py $(if $(TOFU),--tofu $(TOFU))
	$(BIN)/python benches/representation_editing_rl_studies.py
	$(BIN)/python benches/guards_behaviour.py
	$(BIN)/python benches/benchmarks.py $(if $(DATA),--data $(DATA))

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict src

build: $(READY)
	$(BIN)/python -m build --no-isolation
