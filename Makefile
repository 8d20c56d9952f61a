# Type `make` for the list of commands. Everything is installed into .venv; nothing
# outside of this folder is changed.

PYTHON ?= python3
PORT ?= 8000
JOBS ?= 2
# For pip, e.g. the index of torch's small CPU build on Linux (see README.md).
PIP_OPTIONS ?=
# Exact versions; `CONSTRAINTS=` installs the newest that pyproject.toml allows.
CONSTRAINTS ?= constraints.txt
# What `make run` and `make refresh` take: none means all.
CHAPTERS ?=
SIZE ?= laptop
# Options of `make bench`; `.venv/bin/python -m benchmarks run --help` lists them.
BENCH ?=

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --quiet --disable-pip-version-check install \
	$(CONSTRAINTS:%=--constraint %) $(PIP_OPTIONS)
HTML := _build/html/index.html
PDF := _build/tfcourse.pdf
PASSED := _build/passed
COVERED := model generation speculative pretrained families variants data training \
	recipes probes
STAGES := lint unit pages headless notebooks

# Every file of the project. A name with a space is not one of ours.
FIND := find . \( -name .git -o -name .venv -o -name _build -o -name runs \
	-o -name __pycache__ -o -name '*.egg-info' -o -name '.*_cache' \
	-o -name mutants -o -name .hypothesis -o -name .ipynb_checkpoints -o -name node_modules \
	-o -name '.coverage*' -o -name '* *' \) -prune -o -type f -print
SOURCES := $(shell $(FIND))
BOOK := $(filter ./book/% ./notebooks/% ./tfcourse/% ./_config.yml ./_toc.yml, \
	$(SOURCES))

# Spinning OpenMP threads make small steps several times slower on a busy machine.
export OMP_WAIT_POLICY := PASSIVE

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: FORCE help book print serve install lab run refresh measure test lint unit \
	pages headless few notebooks seeds mutants bench lock clean distclean

help:
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

book: $(HTML)  ## render the book from the committed outputs
	@echo "The book: open $(HTML) in a browser, or type: make serve"

print: $(PDF)  ## print the whole book into one PDF, with the Chromium that is here
	@echo "The book on paper: $(PDF)"

serve: $(HTML)  ## render the book and serve it on this machine
	@echo "The book: http://127.0.0.1:$(PORT)/ (Ctrl-C ends)"
	@$(PY) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

install: $(VENV)/.all  ## install everything into .venv, to run and test notebooks

lab: $(VENV)/.all  ## open the notebooks in JupyterLab
	$(PY) -m jupyterlab --LabApp.app_settings_dir=notebooks/.jupyterlab \
		--LabApp.default_url=/lab/tree/notebooks/START_HERE.md

run: $(VENV)/.all  ## execute chapters into runs/ (CHAPTERS="1 6" SIZE=smoke)
	$(PY) -m tfcourse.cli run $(CHAPTERS) --size $(SIZE) --out runs

refresh: $(VENV)/.all  ## execute chapters in place, to commit their outputs
	$(PY) -m tfcourse.course.refresh $(CHAPTERS)

measure: $(VENV)/.all  ## time and memory of all chapters, for the status page
	$(PY) -m tfcourse.cli run --size smoke --jobs $(JOBS) --out runs/measured/smoke
	$(PY) -m tfcourse.cli run --size laptop --jobs $(JOBS) --out runs/measured/laptop
	$(PY) -m tfcourse.course.pages --measured runs/measured/smoke runs/measured/laptop

test: $(STAGES:%=$(PASSED)/%) $(HTML)  ## check everything that changed since it passed
	@echo "Passed on these files: $(STAGES), book. (make NAME runs one again.)"

lint: $(VENV)/.all  ## ... style, format and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

unit: $(VENV)/.all  ## ... the package and its tests' coverage
	$(PY) -m pytest tests --ignore tests/book -n $(JOBS) --dist worksteal \
		$(COVERED:%=--cov tfcourse.%) --cov-report term:skip-covered \
		--cov-fail-under 95

pages: $(VENV)/.all  ## ... the built book, in a browser
	$(PY) -m pytest tests/book -n $(JOBS) --dist worksteal

headless: $(VENV)/.all  ## ... chapters by papermill, smallest size, no network
	$(PY) tests/without_network.py $(PY) -m tfcourse.cli run --size smoke \
		--jobs $(JOBS) --timeout 300 --out runs/smoke
	$(PY) -m papermill --no-progress-bar notebooks/06_encoder_decoder.ipynb \
		runs/smoke/papermill.ipynb -p size smoke

few: $(VENV)/.all  ## chapters at size gpu on the CPU, a few steps of each training
	$(PY) tests/without_gpu.py $(PY) -m tfcourse.cli run --size gpu --device cpu \
		--jobs $(JOBS) --timeout 900 --out runs/few

notebooks: $(VENV)/.all  ## ... the notebooks as committed, cell by cell
	OMP_NUM_THREADS=1 $(PY) -m pytest --nbval-lax --nbval-cell-timeout 600 \
		--nbval-current-env -n $(JOBS) --dist loadfile notebooks

seeds: $(VENV)/.all  ## do all claims hold with seeds 0 to 4? (some minutes a chapter)
	OMP_NUM_THREADS=1 $(PY) -m pytest tests/notebooks/test_seeds.py -m seeds -n $(JOBS)

mutants: $(VENV)/.all  ## plant small faults in the model core: do the tests see them?
	$(PIP) --editable '.[mutants]'
	$(PY) -m mutmut run --max-children $(JOBS)
	$(PY) -m mutmut export-cicd-stats
	@$(PY) -c "import json; seen = json.load(open('mutants/mutmut-cicd-stats.json')); \
		print(seen, f\"score {seen['killed'] / seen['total']:.1%}\")"

# On a machine of its own, spinning threads are faster: no library is held back here.
bench: $(VENV)/.all  ## time tfcourse beside other libraries (BENCH="--kinds decode")
	env -u OMP_WAIT_POLICY $(PY) -m benchmarks run $(BENCH)

lock: $(VENV)/.all  ## write the installed versions into constraints.txt
	@sed '/^#/!d' constraints.txt > constraints.new
	@$(PY) -m pip freeze --exclude-editable | sed 's/+cpu$$//' >> constraints.new
	@mv constraints.new constraints.txt

clean:  ## remove what was built, run or cached
	rm -rf _build runs mutants .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name .venv -prune -o -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## the same, and the virtual environment
	rm -rf $(VENV) tfcourse.egg-info

# A stage that passed is not run again until a file changes, comes or goes. The time
# stamp is of the start, so that a change made meanwhile is not missed.
$(PASSED)/%: $(SOURCES) _build/files $(VENV)/.all
	@mkdir -p $(@D) && touch $@.started
	@$(MAKE) --no-print-directory $*
	@mv $@.started $@

# Chapters whose outputs are out of date are executed first, for which everything is
# installed. When none is, the book alone needs neither torch nor the package.
$(HTML): $(BOOK) _build/files $(VENV)/.book
	@stale=$$($(PY) -m tfcourse.course.fresh) && if [ -n "$$stale" ]; then \
		echo "What these chapters depend on has changed: $$stale"; \
		$(MAKE) --no-print-directory refresh CHAPTERS="$$stale"; fi
	$(VENV)/bin/jupyter-book build -q --all -W -n --keep-going .
	@touch $@

$(PDF): $(HTML) $(VENV)/.print
	$(PY) -m tfcourse.course.paper $(<D) $@

# Rewritten only when a file came or went.
_build/files: FORCE
	@mkdir -p $(@D) && $(FIND) | sort > $@.new
	@if cmp -s $@ $@.new; then rm $@.new; else mv $@.new $@; fi

# A virtual environment does not survive a move: one of another folder is made anew.
ifneq ($(shell cat $(VENV)/.made 2>/dev/null),$(CURDIR))
$(VENV)/.made: FORCE
endif
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
		"Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..."; \
		exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo \
		"$(PYTHON) lacks venv; on Debian or Ubuntu: apt-get install python3-venv"; \
		exit 1; }
	$(PYTHON) -m venv $(if $(wildcard $@),--clear) $(VENV)
	@echo '$(CURDIR)' > $@

# The book alone, also on paper, needs neither torch nor the package.
$(VENV)/.book $(VENV)/.print: $(VENV)/.%: $(VENV)/.made pyproject.toml $(CONSTRAINTS)
	@$(PY) -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb')); \
		print(*project['project']['optional-dependencies']['$*'], sep='\n')" > $@.txt
	$(PIP) -r $@.txt
	@touch $@

$(VENV)/.all: $(VENV)/.book
	$(PIP) --editable '.[lab,book,test]'
	@touch $@
