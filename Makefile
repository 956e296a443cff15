# `make book` and `make test` need Python 3.10 or newer and a network; they create .venv and install what is missing.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

# Two files at a time, tests or notebooks.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

# Threads that wait without spinning: several times faster where another process keeps a core busy.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help book test check notebooks repeat pdf clean

help:
	@echo "make book    build the book: _build/html/index.html"
	@echo "make test    style, spelling, unit tests, doctests (make check) and every notebook (make notebooks)"
	@echo "make repeat  after make book: execute every notebook again and compare what it says"
	@echo "make pdf     after make book: the book as _build/pdf/book.pdf, where there is a Chromium or Chrome"
	@echo "make clean   remove the built book and caches (rm -r .venv for the environment)"
	@echo "PYTHON=...   the interpreter to create .venv with (now: $(PYTHON))"

$(INSTALLED): pyproject.toml requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -r requirements.txt -e .
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

repeat: $(INSTALLED)
	MVSNET_EDU_STILL_FIGURES=1 PYTHONPATH=tests $(PYTEST) -p glued \
		--nbval --nbval-sanitize-with tests/nbval.cfg _build/jupyter_execute/book

pdf: $(INSTALLED)
	$(BIN)/python tools/pdf.py

clean:
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
	find book mvsnet_edu tests -name __pycache__ -prune -exec rm -r {} +
