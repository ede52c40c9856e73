# Needs only make and Python >= 3.11. Everything else is installed into .venv (and .venv-3.0, .venv-bench), nothing outside this folder.
PYTHON ?= python3

AIRFLOW := 3.3.2
AIRFLOW_COMPAT := 3.0.6
LOCK := constraints/airflow-3.3.txt
LOCK_COMPAT := constraints/airflow-3.0.txt
LOCK_BENCH := constraints/benchmarks.txt
LOCK_PYTHON := 3.11

VENV := .venv
VENV_COMPAT := .venv-3.0
VENV_BENCH := .venv-bench
READY := $(VENV)/.ready
READY_COMPAT := $(VENV_COMPAT)/.ready
READY_BENCH := $(VENV_BENCH)/.ready
READY_SHOTS := $(VENV)/.ready-screenshots
# What decides about an installation: a change here makes the next call install again.
INPUTS := pyproject.toml airflow_provider_comet/__init__.py Makefile

# Airflow starts twice as fast from compiled bytecode, and this variable would make every process compile it again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo up test test-compat e2e simulate bench screenshots lock
.DELETE_ON_ERROR:

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST) \
		| sed 's/$$(AIRFLOW)/$(AIRFLOW)/; s/$$(AIRFLOW_COMPAT)/$(AIRFLOW_COMPAT)/'
	@echo 'PYTHON=python$(LOCK_PYTHON) chooses the interpreter (default: python3); EMULATOR=0 with COMETAPI_KEY set: the real service.'

setup: $(READY)  ## install Airflow $(AIRFLOW), this package and its tools into .venv (every target does it when needed)
	@echo '$(VENV) is ready: Airflow $(AIRFLOW)'

demo: $(READY)  ## a real Airflow creates three predictions, waits for them deferred and stores the pictures
	@$(VENV)/bin/python -m tests.e2e.demo

up: $(READY)  ## the same, then Airflow stays up for exploring until Ctrl-C
	@$(VENV)/bin/python -m tests.e2e.demo --keep

test: $(READY)  ## ruff, mypy, the pure tests, all other tests and the wheel's contents
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest -n auto tests/unit --pure=only
	$(VENV)/bin/python -m pytest -n auto --dist worksteal --pure=no

test-compat: $(READY_COMPAT)  ## imports, provider validation and every example DAG on Airflow $(AIRFLOW_COMPAT)
	$(VENV_COMPAT)/bin/python -m tests.e2e.compat --airflow $(AIRFLOW_COMPAT)

e2e: $(READY)  ## real Airflow processes: kills at every point, clears, waits, stores, odd answers, leaked keys (25 minutes; needs PostgreSQL)
	@$(VENV)/bin/python -m tests.e2e.postgres
	$(VENV)/bin/python -m pytest -s tests/e2e

simulate: $(READY)  ## stories of predictions in a simulated world (three minutes; SEEDS=100000 for more; SEED=n tells one)
	@PYTHONHASHSEED=0 $(VENV)/bin/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),10000) --coverage)

bench: $(READY_BENCH)  ## what a wait costs, beside other ways to wait (40 minutes; PARTS='cpu soak'; WRITE=1 renews docs/benchmarks.md)
	$(VENV_BENCH)/bin/python -m benchmarks $(PARTS) $(if $(WRITE),--write)

screenshots: $(READY_SHOTS)  ## the pictures in docs/images, by a real browser (needs chromium, or CHROMIUM=/path/to/one)
	@$(VENV)/bin/python -m tests.e2e.screenshots

# Names and versions only: no index, no path, no hash, so that a lock says the same on every machine.
COMPILE = $(VENV)/bin/uv pip compile --quiet --no-config pyproject.toml --python-version $(LOCK_PYTHON) --upgrade \
	--no-emit-index-url --no-emit-find-links --no-annotate --no-header --constraints
# Airflow 3.0.6 does not run tasks with FastAPI and Pydantic releases that came after it, so its set is as old as it is.
# common-compat is the exception: its asynchronous connection look-up came later, and is tested here against 3.0.6.
COMPAT_AGE = --exclude-newer 2025-09-10 --exclude-newer-package apache-airflow-providers-common-compat=2026-11-01

# What `make bench` measures us against. Their lock holds only what the main one does not.
PEERS := apache-airflow-providers-http apache-airflow-providers-openai apache-airflow-providers-dbt-cloud

lock: $(VENV)/bin/uv  ## make the files in constraints/ anew
	@mkdir -p constraints
	@echo 'apache-airflow==$(AIRFLOW)' > $(VENV)/pin.txt
	@{ echo '# Made by `make lock`: the tested set for Airflow $(AIRFLOW) on Python $(LOCK_PYTHON).'; \
		$(COMPILE) $(VENV)/pin.txt --all-extras; } > $(VENV)/lock.txt
	@echo 'apache-airflow==$(AIRFLOW_COMPAT)' > $(VENV)/pin.txt
	@{ echo '# Made by `make lock`: the tested set for Airflow $(AIRFLOW_COMPAT) on Python $(LOCK_PYTHON).'; \
		echo '# As old as that Airflow (it does not run with newer FastAPI and Pydantic), except common-compat; recipe in the Makefile.'; \
		$(COMPILE) $(VENV)/pin.txt --extra dev $(COMPAT_AGE); } > $(VENV)/lock-compat.txt
	@printf '%s\n' $(PEERS) > $(VENV)/peers.txt
	@{ echo '# Made by `make lock`: what `make bench` measures us against, and what it needs on top of $(LOCK).'; \
		$(COMPILE) $(VENV)/lock.txt $(VENV)/peers.txt --all-extras | grep -vxFf $(VENV)/lock.txt; } > $(VENV)/lock-bench.txt
	@mv $(VENV)/lock.txt $(LOCK) && mv $(VENV)/lock-compat.txt $(LOCK_COMPAT) && mv $(VENV)/lock-bench.txt $(LOCK_BENCH)
	@wc -l $(LOCK) $(LOCK_COMPAT) $(LOCK_BENCH)

# A clear word before anything is installed. common-compat >= 1.21, which we need, exists for Python >= 3.11 only.
define check_python
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: make PYTHON=/path/to/python$(LOCK_PYTHON) chooses another one" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = "%d.%d" % sys.version_info[:2]; \
		sys.version_info >= (3, 11) or sys.exit("Python >= 3.11 is needed and $(PYTHON) is " + v + ": make PYTHON=/path/to/python$(LOCK_PYTHON) chooses another one"); \
		v == "$(LOCK_PYTHON)" or print("The locks are made and tested for Python $(LOCK_PYTHON); the same releases are installed for " + v + ".")'
endef

# install(venv, lock, Airflow version, extra, more): what we got is asserted, because a resolver may quietly pick an older Airflow.
define install
	@echo 'Installing Airflow $(3) into $(1) ...'
	@$(1)/bin/uv pip install --quiet --python $(1)/bin/python --compile-bytecode --constraints $(2) --build-constraints $(2) \
		'apache-airflow==$(3)' -e '.[$(4)]' $(5)
	@$(1)/bin/python -m compileall -q airflow_provider_comet
	@$(1)/bin/python -c 'import sys; from importlib.metadata import version; v = version("apache-airflow-core"); \
		v == "$(3)" or sys.exit("Airflow $(3) was asked for and " + v + " was installed")'
	@touch $(1)/.ready
endef

$(READY): $(VENV)/bin/uv $(LOCK) $(INPUTS)
	$(call install,$(VENV),$(LOCK),$(AIRFLOW),dev-s3)

$(READY_COMPAT): $(VENV_COMPAT)/bin/uv $(LOCK_COMPAT) $(INPUTS)
	$(call install,$(VENV_COMPAT),$(LOCK_COMPAT),$(AIRFLOW_COMPAT),dev)

$(READY_BENCH): $(VENV_BENCH)/bin/uv $(LOCK) $(LOCK_BENCH) $(INPUTS)
	$(call install,$(VENV_BENCH),$(LOCK),$(AIRFLOW),dev-s3,--constraints $(LOCK_BENCH) $(PEERS))

$(READY_SHOTS): $(READY)
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --constraints $(LOCK) -e '.[screenshots]'
	@touch $@

%/bin/uv:
	$(check_python)
	@echo 'Making $* ...'
	@$(PYTHON) -m venv $*
	@$*/bin/python -m pip install --quiet --disable-pip-version-check uv
	@touch $@
