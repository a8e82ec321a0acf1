# Needs only make and Python 3.11 or newer. `make demo` and `make test` build .venv by themselves.

VENV := .venv
BIN := $(VENV)/bin
CODE := lifeboat flows tasks deployments console tests bench

# The first interpreter that is new enough and can make a virtual environment. Say `make PYTHON=…` to choose another.
PYTHON = $(shell for candidate in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$candidate -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo $$candidate; break; }; done)

JOBS := 0

.PHONY: help demo test check up bench bench-impact property lines clean requirements
.DEFAULT_GOAL := help

help:
	@echo 'make demo          the whole loop on a real PostgreSQL: backups, drill, verification, an accident, recovery'
	@echo 'make up            embedded PostgreSQL, Prefect server, worker and deployments, until Ctrl-C'
	@echo 'make test          all tests (ARGS="-k label" chooses, JOBS=2 in two processes)'
	@echo 'make check         lint, format, types, layers, spelling, module length'
	@echo 'make property      the property tests with 10,000 examples (JOBS=2 in two processes)'
	@echo 'make bench         overhead and checksum speed against the bare tools'
	@echo 'make bench-impact  what WAL archiving and backups cost the server; about 10 minutes (ARGS="--minutes 20")'
	@echo 'make requirements  pin the requirements again (needs uv; ARGS=--upgrade for newer ones)'
	@echo 'make clean         remove .venv and all caches'

demo: $(VENV)/.runtime
	$(BIN)/lifeboat demo $(ARGS)

# Settings of your own in ./lifeboat.toml come first; else what the demo left is shown.
DEMO = $(shell [ "$$(id -u)" -eq 0 ] && echo /var/lib/lifeboat-demo || echo "$${XDG_STATE_HOME:-$$HOME/.local/state}/lifeboat-demo")
up: $(VENV)/.runtime
	$(BIN)/lifeboat --config $(if $(wildcard lifeboat.toml),lifeboat.toml,$(DEMO)/lifeboat.toml) up $(ARGS)

# A module stays in one process: the tests of several share a server that they kill in turn.
test: $(VENV)/.dev
	sh tests/support/install-system.sh
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Exit code 5 says that no test was selected: there is nothing to prove yet.
property: $(VENV)/.dev
	HYPOTHESIS_PROFILE=ci $(BIN)/python -m pytest -m 'unit and property' --timeout=1800 --numprocesses $(JOBS) $(ARGS) || [ $$? -eq 5 ]

check: $(VENV)/.dev lines
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

lines:
	@find $(CODE) -name '*.py' -exec awk 'END { if (NR > 400) { print FILENAME ": " NR " lines, at most 400"; exit 1 } }' {} \; \
		| { ! grep . ; }

# The benchmarks make their servers with what the tests make theirs with.
bench: $(VENV)/.dev
	$(BIN)/python -m bench.overhead
	$(BIN)/python -m bench.assets
	$(BIN)/python -m bench.wal_index

bench-impact: $(VENV)/.dev
	$(BIN)/python -m bench.impact $(ARGS)

requirements:
	uv pip compile --quiet $(PIN) $(ARGS) --group build -o requirements/runtime.txt pyproject.toml
	uv pip compile --quiet $(PIN) $(ARGS) --group dev -c requirements/runtime.txt -o requirements/dev.txt pyproject.toml

PIN := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate \
	--custom-compile-command 'make requirements'

clean:
	rm -rf $(VENV) dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment: the stamps are newer than what they were made from ---------------------------------------------

$(VENV)/.created:
	@test -n '$(PYTHON)' || { echo 'lifeboat needs Python 3.11 or newer with venv' \
		'(on Debian and Ubuntu: apt-get install python3 python3-venv)' >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.created requirements/runtime.txt pyproject.toml
	$(call install,requirements/runtime.txt)
	@touch $@

# The development requirements contain the runtime ones, at the same versions.
$(VENV)/.dev: $(VENV)/.created requirements/dev.txt pyproject.toml
	$(call install,requirements/dev.txt)
	@touch $(VENV)/.runtime $@

# uv is several times faster, but knows nothing of pip's own configuration (a mirror, a proxy): pip has the last word.
# The files list every package, so pip need not resolve anything.
define install
	@echo 'installing $(1) into $(VENV): about a minute the first time'
	@{ command -v uv >/dev/null 2>&1 && uv pip install --quiet --python $(BIN)/python --compile-bytecode \
		--require-hashes -r $(1); } \
		|| $(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r $(1)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-index --no-deps --no-build-isolation -e .
endef
