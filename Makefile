# What can be done with a checkout. Everything works from a fresh one: `make demo`, `make test`.
# Debian's own Python comes first: the pods of the local cluster use its version, too.
PYTHON := $(firstword $(foreach name,/usr/bin/python3.11 python3.11 /usr/bin/python3 python3,$(shell command -v $(name))))
CLUSTER = $(PYTHON) -m cluster
IN_CLUSTER = . .moe/env &&
PYTEST = .venv/bin/python -m pytest
# The tests of a file stay together: they share what they start.
BESIDE = --numprocesses=auto --maxprocesses=3 --dist=loadfile

# Large packages are imported again and again: let Python keep what it compiled.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help python venv cluster binaries images install lint unit scenarios e2e test demo soak bench bench-dataplane bench-operator krew status clean distclean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

python:
	@test -n "$(PYTHON)" || { \
	  echo "error: Python 3.11 or newer is needed; on Debian: sudo apt-get install python3 python3-venv" >&2; exit 1; }

venv: python ## have .venv as requirements.lock says
	@$(CLUSTER) venv

cluster: venv ## have a Kubernetes cluster: kind, or the one that KUBECONFIG names
	@$(CLUSTER) up

images: cluster ## build the images of all programs, and load them into the cluster
	@$(CLUSTER) images

install: images ## install the operator and its custom resources into the cluster
	@$(CLUSTER) install

lint: venv ## check style, types and import rules
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	.venv/bin/mypy

binaries: venv ## have kubectl, kube-apiserver, etcd, prometheus, promtool, helm and krew in .moe/bin, for tests without a cluster
	@$(CLUSTER) binaries

unit: binaries ## run what needs no cluster: unit, property and integration tests
	$(PYTEST) $(BESIDE)

scenarios: install binaries
	@$(IN_CLUSTER) $(PYTEST) e2e --timeout=600

e2e: venv ## run the scenarios on a real cluster; one that was not up before is taken away again
	@$(CLUSTER) during $(MAKE) --no-print-directory scenarios

test: lint unit e2e ## run everything

soak: install ## change random experts under load for MINUTES=20: what fails, what grows
	@$(IN_CLUSTER) python -m e2e.soak --minutes $(or $(MINUTES),20)

demo: install ## serve the example model, change it and break it, and print what was measured
	@$(IN_CLUSTER) python -m e2e.demo

bench: venv ## measure routing, dispatch, rollouts and scaling on this machine
	.venv/bin/python -m tests.benchmarks

bench-dataplane: venv ## measure a hop beside its floors, and with RAY=PYTHON beside Ray Serve; writes docs/benchmarks.md
	.venv/bin/python -m tests.benchmarks.dataplane --write $(if $(RAY),--ray $(RAY))

bench-operator: binaries ## measure the operator against a plain kopf one, with up to 1,000 experts
	.venv/bin/python -m tests.benchmarks.operators

krew: venv ## pack kubectl moe for this machine, and its manifest for krew, into dist; RELEASE=https://… is where you publish it
	@test -n "$(RELEASE)" || { echo "error: say where the archive will be: make krew RELEASE=https://…" >&2; exit 1; }
	.venv/bin/python -m krew --release "$(RELEASE)"

status: python ## say what there is of this checkout's cluster
	@$(CLUSTER) status

clean: python ## take away what this checkout made; the shared cache stays
	@$(CLUSTER) down

distclean: python ## also remove the environment and the cache that all checkouts share
	@$(CLUSTER) purge
