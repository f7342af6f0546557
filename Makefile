# Everything sets itself up: `make test` and `make demo` need Python 3.11 to 3.13 and make.

# The first Python of a supported version; `make PYTHON=... test` chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := demo

# `make bench BENCH=quick` for size 1 only, each once; BENCH=40 for what there is time for in 40 minutes.
BENCH :=

.PHONY: help install programs test test-fast lint format docs bench cases noise demo demo-selfcal demo-calibrate clean

help:
	@echo "make test       set up and run all tests"
	@echo "make test-fast  only those without CASA, QuartiCal and WSClean"
	@echo "make demo       peel a simulated bright source, in ./$(DEMO)"
	@echo "make demo-selfcal  self-calibrate the 3C273 data that casadata ships, in ./$(DEMO)-selfcal"
	@echo "make demo-calibrate  calibrate the NGC 5921 data that casadata ships, in ./$(DEMO)-calibrate"
	@echo "make bench      beside the published recipe and limits, to bench/README.md: about three hours on two idle cores;"
	@echo "                BENCH=quick for a quarter of an hour, BENCH=40 for 40 minutes; a stopped run goes on"
	@echo "make cases      60 simulated fields with all kinds of errors against truth, to docs/peeling.md: a night; goes on"
	@echo "make lint       ruff, mypy and the check of man pages and completions"
	@echo "make docs       write man pages and completions again"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.13 found; make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	@touch $@

# Many small tables: in memory, where there is some, they cost nothing; on a busy disk minutes.
TEST_TMP := $(shell free=$$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $$4 }'); \
	test "$${free:-0}" -gt 8000000 && test -w /dev/shm && mktemp -u -d -p /dev/shm peelkit-test.XXXXXX)

# In the order of the folders: the short ones of tests/unit come last, and both processes end together.
test: $(STAMP) programs
	status=0; $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(if $(TEST_TMP),--basetemp $(TEST_TMP)) \
		|| status=$$?; rm -rf $(TEST_TMP); exit $$status

test-fast: $(STAMP)
	$(BIN)/python -m pytest -m 'not casa and not quartical and not wsclean and not slow'

# Programs of the system, WSClean and Open MPI's mpirun: root may install them, others are told.
programs:
	@{ command -v wsclean && command -v mpirun; } > /dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq \
	&& apt-get install -y -qq wsclean openmpi-bin > /dev/null; } \
	|| echo "no wsclean or mpirun on PATH: their tests will fail; as root: apt install wsclean openmpi-bin" >&2

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

docs: $(STAMP)
	$(BIN)/python tools/make_man.py
	$(BIN)/python tools/make_completions.py

bench: $(STAMP)
	@command -v wsclean > /dev/null || echo "wsclean is not installed (apt install wsclean): left out"
	$(BIN)/python bench/run.py $(if $(filter quick,$(BENCH)),--quick,$(if $(BENCH),--minutes $(BENCH)))

noise: $(STAMP)
	$(BIN)/python bench/noise.py --images 500 --sets 500

cases: $(STAMP)
	$(BIN)/python bench/cases.py --jobs 2
	$(BIN)/python bench/cases.py --jobs 2 --selfcal
	$(BIN)/python bench/cases.py --table

demo: $(STAMP)
	rm -rf ./$(DEMO)
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/peel-simulated.sh $(DEMO)

demo-selfcal: $(STAMP)
	rm -rf ./$(DEMO)-selfcal
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/selfcal-3c273.sh $(DEMO)-selfcal

demo-calibrate: $(STAMP)
	rm -rf ./$(DEMO)-calibrate
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/calibrate-ngc5921.sh $(DEMO)-calibrate

clean:
	rm -rf $(VENV) $(DEMO) $(DEMO)-selfcal $(DEMO)-calibrate build *.egg-info src/*.egg-info
