# Everything a person or a machine runs. `make help` lists it.
.DEFAULT_GOAL := help
.PHONY: help setup drill drill-kube kube testbed servers estate elastic test test-kube test-long lint bench bench-anomaly compiled peers lock check-dashboards mutate-alerts

BIN := .venv/bin
# In CI nothing is left out: the Kubernetes test bed is built, and its tests must not be skipped.
IN_CI := $(filter-out 0 false,$(CI))

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install what is needed: .venv from the lock, Prometheus, Alertmanager
	@./scripts/setup.sh

drill: setup ## Run a whole incident on a live exchange, end to end
	@$(BIN)/tapewatch drill gateway-hang

drill-kube: setup ## Run a whole incident on a real Kubernetes control plane; the first time it is built
	@$(BIN)/tapewatch drill pod-hang --on kubernetes

kube: setup ## Start a real Kubernetes control plane here; the first time it is built (6 to 12 minutes)
	@$(BIN)/tapewatch kube up

testbed: setup
	@$(BIN)/tapewatch kube build

servers: setup ## Have the real servers that tests need: Elasticsearch, Kafka, Filebeat (once, about four minutes)
	@$(BIN)/tapewatch servers build

estate: ## Have all that `tapewatch up --estate distributed` stands on: Kafka, PostgreSQL, RabbitMQ, HAProxy, Zipkin
	@ESTATE_REQUIRED=1 ./scripts/setup.sh
	@$(BIN)/tapewatch servers build kafka zipkin
	@$(BIN)/tapewatch doctor --estate distributed

elastic: setup ## Start a real Elasticsearch here, set up for the logs; the first time it is fetched
	@$(BIN)/tapewatch elk up

lint: setup ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What the tests of one run start: each worker has servers of its own.
SERVERS := elastic or postgres or kafka or rabbit or lb

# Three workers for two cores: a third of what the first run takes is waiting for servers and clocks.
# What tests import is compiled once, also where the environment says that nothing be kept of it.
test test-kube test-long: export PYTHONDONTWRITEBYTECODE :=

test: setup ## Run every check but the long ones; those on Kubernetes if the test bed is built
	@$(MAKE) --no-print-directory -j 2 lint $(if $(IN_CI),testbed servers)
	$(if $(IN_CI),SERVERS_REQUIRED=1 )$(BIN)/pytest -q -n 3 -m "not long and not estate and not kube and not ($(SERVERS))"
	$(if $(IN_CI),SERVERS_REQUIRED=1 TESTBED_REQUIRED=1 )$(BIN)/pytest -q -m "estate and not long and not ($(SERVERS))"
	$(if $(IN_CI),SERVERS_REQUIRED=1 )$(BIN)/pytest -q -n 2 --dist loadfile -m "($(SERVERS)) and not long"
	$(if $(IN_CI),TESTBED_REQUIRED=1 )$(BIN)/pytest -q -n 2 --dist loadfile -m "kube and not long and not estate"

test-kube: testbed ## Run the tests on Kubernetes; builds the test bed first
	TESTBED_REQUIRED=1 $(BIN)/pytest -q -m "kube and not long"

test-long: setup ## Run the long tests and all drills: sixteen here (half an hour), ten on Kubernetes
	$(BIN)/pytest -q -m long
	$(BIN)/tapewatch drill all
	$(BIN)/tapewatch drill all --on kubernetes

check-dashboards: setup ## Ask every question of every board on a live estate of its own (about a minute)
	@$(BIN)/tapewatch dashboards check --own

mutate-alerts: setup ## Spoil every alert in small ways and see its tests notice; writes alerts/mutants.md (some minutes)
	@$(BIN)/python -m control.mutation $(ONLY)

bench: setup peers ## Measure; prints ratios and distributions
	@for each in bench/*.py; do echo "== $$each"; $(BIN)/python "$$each" || exit 1; done

bench-anomaly: setup ## Detectors on labelled series beside well-known ones; writes bench/anomaly.md (some minutes)
	@$(BIN)/python bench/detectors.py --whole

peers: ## Install the matching engines of PyPI that the bench measures against, into .peers
	@test -x .peers/bin/python || python3 -m venv .peers
	@.peers/bin/pip install --quiet --disable-pip-version-check -r bench/peers.txt || echo "bench: the books of PyPI are left out"

compiled: setup ## Compile the matching into build/compiled; TAPEWATCH_COMPILED=1 runs it (needs a C compiler)
	@$(BIN)/python scripts/compiled.py

lock: ## Write requirements.lock anew (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra dev pyproject.toml --output-file requirements.lock
