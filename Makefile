# `make book` and `make test` need Python 3.10 or newer and a network; they create .venv and install what is missing.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
TOOLS := .venv/tools/bin
PYTHONS := 3.10 3.11 3.12 3.13

# Two files at a time, tests or notebooks.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

# Threads that wait without spinning: several times faster where another process keeps a core busy.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help book test check notebooks coverage mutants repeat pages links pdf wheel installed lowest newest matrix lock licences audit workflow faults fuzz figures clean

help:
	@echo "make book    build the book: _build/html/index.html"
	@echo "make test    style, spelling, unit tests, doctests (make check) and every notebook (make notebooks)"
	@echo "make repeat  after make book: execute every notebook again and compare what it says"
	@echo "make links   ask the network whether every link out of the book still leads somewhere"
	@echo "make pdf     after make book: the book as _build/pdf/book.pdf, where there is a Chromium or Chrome"
	@echo "make pages   after make book: every page in a browser, where there is a Chromium, and the notebooks' launch"
	@echo "make wheel   build dist/*.whl; make installed tests it, installed, outside the checkout"
	@echo "make matrix  the same with the lowest and the newest versions of everything, on every Python that is here"
	@echo "make lock    write book.lock anew, after a change in requirements.txt"
	@echo "make licences  write the table in THIRD_PARTY.md anew, after a change in book.lock"
	@echo "make audit   ask for known vulnerabilities in what book.lock holds"
	@echo "make coverage  run unit tests and doctests, and print which lines of the package they leave out"
	@echo "make mutants small errors in four modules: which ones do their tests not notice? (see tests/mutants.md)"
	@echo "make faults  kill, starve and double the long commands hundreds of times; takes seven minutes"
	@echo "make fuzz    damage files by the thousands for every reader (CASES=20000 SEED=0)"
	@echo "make figures compute the tables of the model cards again and compare; takes half an hour"
	@echo "make clean   remove the built book and caches (rm -r .venv for the environment)"
	@echo "PYTHON=...   the interpreter to create .venv with (now: $(PYTHON))"

# All packages with their hashes; then torch, whose builds differ, and the package itself.
$(INSTALLED): pyproject.toml requirements.txt book.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --no-deps --require-hashes -r book.lock
	$(BIN)/python -m pip install -r requirements.txt -e .
	touch $@

.venv/tools/installed: tools/requirements.txt
	test -x $(TOOLS)/python || $(PYTHON) -m venv .venv/tools
	$(TOOLS)/python -m pip install -r tools/requirements.txt
	touch $@

book: $(INSTALLED)
	rm -rf _build
	$(BIN)/jupyter-book build . -n -W --keep-going

test: check notebooks

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(PYTEST)

notebooks: $(INSTALLED)
	$(PYTEST) --nbval-lax book

coverage: $(INSTALLED)
	$(PYTEST) --cov --cov-report=term

mutants: $(INSTALLED)
	$(BIN)/python -m pip install mutmut==3.8.1
	$(BIN)/python -m mutmut run
	$(BIN)/python tools/mutants.py

repeat: $(INSTALLED)
	MVSNET_EDU_STILL_FIGURES=1 PYTHONPATH=tests $(PYTEST) -p glued \
		--nbval --nbval-sanitize-with tests/nbval.cfg _build/jupyter_execute/book

pages: $(INSTALLED)
	MVSNET_EDU_CI=1 $(BIN)/python -m pytest tests/test_book.py tests/test_launch.py

CASES ?= 20000
SEED ?= 0
fuzz: $(INSTALLED)
	$(BIN)/python tools/fuzz.py --cases $(CASES) --seed $(SEED)

# Jupyter Book would execute all notebooks first, so Sphinx is called with the configuration that it makes.
links: $(INSTALLED)
	mkdir -p _build/links
	$(BIN)/jupyter-book config sphinx .
	mv conf.py _build/links
	PYTHONPATH=book/_ext $(BIN)/sphinx-build -Q -b linkcheck -D nb_execution_mode=off -c _build/links . \
		_build/links/report || { cat _build/links/report/output.txt; exit 1; }

pdf: $(INSTALLED)
	$(BIN)/python tools/pdf.py

wheel: .venv/tools/installed
	rm -rf dist
	$(TOOLS)/hatchling build -t wheel

installed: wheel $(INSTALLED)
	$(TOOLS)/python tools/installed.py book $(BIN)/python

lowest newest: wheel
	$(TOOLS)/python tools/installed.py $@ $(PYTHON)

# The lowest versions have no wheels for newer Pythons.
matrix:
	$(MAKE) lowest PYTHON=python3.10
	for version in $(PYTHONS); do \
		python$$version --version || continue; \
		$(MAKE) newest PYTHON=python$$version || exit 1; \
	done

lock: .venv/tools/installed
	$(TOOLS)/python tools/lock.py $(TOOLS)/uv

licences: $(INSTALLED)
	$(BIN)/python tools/licences.py

audit: .venv/tools/installed
	$(TOOLS)/python tools/audit.py $(TOOLS)/pip-audit

workflow: .venv/tools/installed
	$(TOOLS)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

faults: $(INSTALLED)
	$(BIN)/python tools/faults.py --seed $${SEED:-0}

figures: $(INSTALLED)
	$(BIN)/python benchmarks/card.py --check

clean:
	rm -rf _build dist .pytest_cache .ruff_cache .hypothesis .coverage mutants
	find book mvsnet_edu tests -name __pycache__ -prune -exec rm -r {} +
