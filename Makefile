# Every target is the only command a fresh clone needs: it makes the virtual environment first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
# Tests at a time: most of them wait.
JOBS   ?= 4

.PHONY: explore deb wheels test-packages packages-installed dashboards help demo cluster-demo run test test-clients \
	test-chaos test-native-sanitizers lint bench bench-attack bench-tls bench-cluster bench-scale bench-schedulers soak repeat \
	clean coverage mutation docs man
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

NATIVE := hatch_build.py $(wildcard director/relay/_relay*.[ch])

$(READY): pyproject.toml constraints.txt $(NATIVE)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# In this order: the compiler is among them, and the environment's native relay is built with it.
.NOTPARALLEL:
servers-%:
	@.ci/servers $*

demo: $(READY) ## a director, four backends with agents, load, a failure, a summary
	@$(BIN)/python -m deploy.demo

run: $(READY) ## the director on deploy/examples/director.toml
	@$(BIN)/director run deploy/examples/director.toml

test: servers-test $(READY) ## the test suite; brings the servers that it starts, where it may (.ci/servers)
	$(BIN)/pytest --ignore=tests/browser -n $(JOBS) --dist loadscope $(PYTEST_ARGS)

# In an environment of its own: it wants another cryptography than ours.
SSLYZE := build/sslyze/bin/sslyze
$(SSLYZE):
	@$(PYTHON) -m venv build/sslyze
	@build/sslyze/bin/pip install --quiet --disable-pip-version-check sslyze==6.3.1

test-clients: servers-clients $(READY) $(SSLYZE) ## real clients and servers (PostgreSQL, Redis, ssh, nginx ...) with a director between them
	$(BIN)/pytest tests/clients $(PYTEST_ARGS)

# For packages and what is around them, all extras, since the test of names looks at each.
EXTRAS := '.[dev,packages,docs,bench,demo,mutation]'
packages-installed: $(READY)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e $(EXTRAS)

test-packages: servers-packages packages-installed ## Debian packages in a fresh Debian, wheels, containers, workflows; needs root
	$(BIN)/pytest -n 2 --dist loadscope tests/packages $(PYTEST_ARGS)

# Packages, and the dates in them, are the commit's, not those of the day on which they are made.
deb man wheels: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || date -r pyproject.toml +%s)

deb: servers-packages $(READY) man ## the Debian packages of director and agent, for this machine's release; in dist
	@$(BIN)/python -m deploy.packaging.deb

wheels: packages-installed ## source distribution and manylinux wheel; in dist
	@$(BIN)/python -m deploy.packaging.wheels

test-browser: servers-browser $(READY) ## the web interface in Chromium, against a running director
	$(BIN)/pytest tests/browser $(PYTEST_ARGS)

screenshots: servers-browser $(READY) ## docs/images, anew
	@mkdir -p docs/images
	TXDIRECTOR_SCREENSHOTS=$(CURDIR)/docs/images $(BIN)/pytest -q tests/browser -k 'looks or members'
	@! command -v pngquant >/dev/null || pngquant --force --ext .png --skip-if-larger 64 docs/images/web-*.png

dashboards: $(READY) ## deploy/grafana/dashboards, anew from deploy/dashboards
	@$(BIN)/python -m deploy.dashboards

test-native-sanitizers: servers-sanitizers $(READY) ## the native relay under the address, leak, undefined and thread sanitizers
	@PYTHON=$(BIN)/python .ci/sanitizers

test-chaos: servers-chaos $(READY) ## a real cluster in namespaces, and every cable pulled; needs root, etcd, nftables
	$(BIN)/pytest tests/chaos $(PYTEST_ARGS)

cluster-demo: $(READY) ## three etcd members, two directors with a VIP, four backends; the leader killed, etcd stopped
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,demo]'
	@$(BIN)/python -m deploy.cluster_demo

lint: $(READY) ## style, types, import borders
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture
	$(BIN)/python hatch_build.py --into build/lint -Werror

docs: $(READY) ## the site, build/docs/index.html; a warning is an error
	@$(BIN)/python -c 'import sphinx, furo, myst_parser' 2>/dev/null || $(BIN)/pip install --quiet \
		--disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html -d build/doctrees docs build/docs

man: $(READY) ## manual pages of the commands and of director.toml, build/man
	@$(BIN)/python -c 'import sphinx, furo, myst_parser' 2>/dev/null || $(BIN)/pip install --quiet \
		--disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b man -d build/doctrees docs build/man

mutation: $(READY) ## MUTATIONS=300 SEED="1 2 3": random changes of what decides, each of which a unit test should notice
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,mutation]'
	@PYTHONHASHSEED=0 $(BIN)/python -m tests.mutation --sample $(or $(MUTATIONS),300) --seed $(or $(SEED),1)

explore: $(READY) ## ten million states of a takeover's machine: no two owners in any; some six minutes
	EXPLORE_STATES=$(or $(STATES),10000000) $(BIN)/pytest -q -s tests/explore $(PYTEST_ARGS)

coverage: servers-test $(READY) ## the suite with branch coverage
	$(BIN)/pytest --cov --cov-report=term-missing:skip-covered

bench: $(READY) ## the relays beside HAProxy, nginx and Envoy, interleaved; writes bench/results
	@bench/prepare.sh
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	@$(BIN)/python -m bench.relay
	@$(BIN)/python -m bench.busy
	@$(BIN)/python -m bench.plot

bench-tls: $(READY) ## TLS that ends at a director beside HAProxy and a bare pyOpenSSL loop; writes bench/results
	@bench/prepare.sh
	@$(BIN)/python -m bench.tls

bench-attack: $(READY) ## honest clients' p99 while one attacker after the other does his worst: five minutes; writes bench/results
	@$(BIN)/python -m bench.attack

bench-cluster: $(READY) ## takeovers, resignations, drains and reports of a real cluster; TIMES=50 faults beside keepalived; needs root and etcd
	@bench/prepare.sh
	@$(BIN)/python -m bench.cluster
	@$(BIN)/python -m bench.faults --times $(or $(TIMES),50)

bench-schedulers: $(READY) ## schedulers in simulation, then live beside other balancers: about three hours; writes bench/results
	@bench/prepare.sh
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	@$(BIN)/python -m bench.schedulers --reports --keep
	@$(BIN)/python -m bench.live --save
	@$(BIN)/python -m bench.live.plots

bench-scale: $(READY) ## a director of 200 services of 50 hosts: what answers, probes and its relay cost; writes bench/results
	@$(BIN)/python -m bench.scale

soak: servers-packages servers-containers packages-installed ## 200,000 connections through each relay, every byte compared; 200 upgrades under load; a fresh Debian; packages twice; the containers
	SOAK_CONNECTIONS=200000 $(BIN)/pytest -q tests/contract/test_relay_soak.py
	UPGRADES=200 UPGRADE_PER_S=500 $(BIN)/pytest -q -s tests/integration/test_upgrade_soak.py
	TLS_TRANSFERS=1000 TLS_RENEWALS=100 $(BIN)/pytest -q tests/integration/test_tls_endurance.py
	FENCE_ROUNDS=500 $(BIN)/pytest -q tests/integration/test_fence.py -k random
	TAKEOVERS=50 $(BIN)/pytest -q -s tests/chaos/test_promises.py -k killed
	UNNOTICED_PER_S=500 $(BIN)/pytest -q -s tests/chaos/test_spreading.py -k unnoticed
	SEQUENCES=1000 $(BIN)/pytest -q -s tests/chaos/test_sequences.py
	ETCD_AWAY_S=600 $(BIN)/pytest -q -s tests/chaos/test_promises.py -k nothing_moves
	UPGRADE_HANDSHAKE_S=0.05 $(BIN)/pytest -q -s tests/chaos/test_upgrade.py
	FRESH_SUITE=test $(BIN)/pytest -q -s tests/packages/test_fresh.py
	REPRODUCE=debian $(BIN)/pytest -q tests/packages/test_reproducible.py
	COMPOSE_CLUSTER=1 $(BIN)/pytest -q -s tests/packages/test_compose.py

repeat: servers-test $(READY) ## what sockets and time could make flaky, twenty times over
	@for n in $$(seq 20); do $(BIN)/pytest -q -x tests/contract tests/integration || exit 1; done

clean: ## the virtual environment and everything generated
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
