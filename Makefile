# make demo    people found by description, on a data set drawn here
# make test    the tests                    make check   format, lint, types, import contracts
# make test-fast   the tests without the slow ones and those that need a browser, for the inner loop
# make docs    the documentation, in site/  make bench   measurements
# make tiny-model   train the bundled model anew (hours)

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

# A thread per worker, since they share the cores. Bytecode is written even where the environment forbids it: the tests start many
# interpreters, each of which would compile the package anew.
WORKERS ?= 2
PYTEST = env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-fast test-costs check docs browser bench tiny-model clean

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(READY) browser
	$(PYTEST)

test-fast: $(READY)
	$(PYTEST) -m "not slow and not browser"

# Records anew which tests are slow.
test-costs: $(READY) browser
	$(PYTEST) --record-costs tests/slow.tsv

# The tests of the page drive Chromium; where it cannot be had they are skipped, or fail under TBPS_BROWSER=required.
browser:
	@test -n "$$TBPS_CHROMIUM" || for name in chromium chromium-browser google-chrome; do command -v $$name && break; done >/dev/null || { \
	  echo "Debian package wanted: apt-get update && apt-get install -y chromium"; \
	  apt-get update && apt-get install -y --no-install-recommends chromium || echo "no Chromium: the tests of the page cannot run"; }

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_document_links.py tests/test_architecture.py

# Stops at a dead link, and at a name that the pages of the reference promise and the code lacks.
docs: $(READY)
	$(BIN)/python docs/generate.py
	$(BIN)/zensical build --strict --clean

bench: $(READY)
	$(BIN)/python benchmarks/everything.py

tiny-model: $(READY)
	$(BIN)/python examples/train_mannequin_tiny.py

# The virtual environment with pinned packages; made anew when pyproject.toml or the pins change.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tbps needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Debian package needed: apt-get update && apt-get install -y python3-venv"; \
	  apt-get update && apt-get install -y python3-venv; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	touch $(READY)

clean:
	rm -rf .venv demo build site
