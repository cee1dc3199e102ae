# The verbs of the platform. `make help` lists them; each is one command that works without make too.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
.DELETE_ON_ERROR:
# a bytecode cache halves Ansible's start
unexport PYTHONDONTWRITEBYTECODE

PYTHON    ?= python3
INVENTORY ?= inventory/local
PLATFORM  ?= mlops
DATA      ?=
ARGS      ?=
CONFIRM   ?=
KEEP_DATA ?=
IMAGES    ?=
export CONFIRM KEEP_DATA IMAGES

BIN      := .venv/bin
PLAYBOOK := PATH="$(CURDIR)/$(BIN):$$PATH" ANSIBLE_CONFIG=ansible.cfg $(BIN)/ansible-playbook -i $(INVENTORY) -e platform_name=$(PLATFORM)
COMPOSE  := $(BIN)/ansible all -i $(INVENTORY) -m ansible.builtin.command -a
# a file by its absolute path; a URL or the name of a known source as it is
DATA_ARG := $(if $(DATA),-e dvc_runner_data=$(if $(wildcard $(DATA)),$(abspath $(DATA)),$(DATA)))
UV       := $(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes
export UV_DEFAULT_INDEX ?= $(shell $(PYTHON) -m pip config get global.index-url 2>/dev/null || echo https://pypi.org/simple)
export UV_SYSTEM_CERTS ?= true

.PHONY: help
help: ## list the targets
	@printf 'usage: make TARGET [DATA=path|url|name] [INVENTORY=inventory/local] [PLATFORM=mlops] [ARGS="-e name=value"]\n\n'
	grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/; s/\$$\$$/$$/' | sort | awk -F'\t' '{ printf "  %-15s %s\n", $$1, $$2 }'

.PHONY: up
up: root-and-data .venv/run ## bare host -> platform running, pipeline run, result verified
	@$(PLAYBOOK) site.yml $(DATA_ARG) $(ARGS)

.PHONY: check
check: .venv/run ## show what `make up` would change
	@$(PLAYBOOK) site.yml --check --diff $(DATA_ARG) $(ARGS)

.PHONY: pipeline
pipeline: root-and-data .venv/run ## run the pipeline where that is needed (FORCE=yes: every stage again)
	@$(PLAYBOOK) playbooks/pipeline.yml $(DATA_ARG) $(if $(FORCE),-e dvc_runner_force=true) $(ARGS)

.PHONY: verify
verify: root .venv/run ## prove the result; table, reports/verify.json, exit 0, 1 or 2
	@PYTHONPATH=src $(BIN)/python -m platform_verify -i $(INVENTORY) -e platform_name=$(PLATFORM) $(ARGS)

.PHONY: save
save: root .venv/run ## bring dvc.lock, metrics and data of the last run into this checkout
	@$(PLAYBOOK) playbooks/save.yml $(ARGS)
	printf 'To keep them: git add dvc.lock && git commit\n'

.PHONY: env
env: .venv/run ## print exports for a client: eval "$$(make -s env)"
	@file=$$(mktemp); trap 'rm -f "$$file"' EXIT
	$(PLAYBOOK) playbooks/env.yml -e dvc_runner_env_file="$$file" $(ARGS) >&2 1>/dev/null
	cat "$$file"

.PHONY: status
status: root .venv/run ## containers and their health
	@$(COMPOSE) 'docker compose --project-name $(PLATFORM) ps --all'

.PHONY: logs
logs: root .venv/run ## the last lines of every container
	@$(COMPOSE) 'docker compose --project-name $(PLATFORM) logs --tail 50 --no-color'

.PHONY: destroy
destroy: root .venv/run ## remove the platform (CONFIRM=yes, KEEP_DATA=yes keeps volumes, IMAGES=yes removes images)
	@if [ "$(CONFIRM)" != yes ]; then
	  printf 'This removes platform %s%s. Go on? [y/N] ' '$(PLATFORM)' '$(if $(filter yes,$(KEEP_DATA)),, with all its data)'
	  read -r answer || answer=no
	  case "$$answer" in y|Y|yes) ;; *) echo 'Nothing was removed.'; exit 1 ;; esac
	fi
	CONFIRM=yes $(PLAYBOOK) playbooks/destroy.yml $(ARGS)

.PHONY: pipeline-local
pipeline-local: .venv/pipeline ## the pipeline without Docker and servers: local remote, SQLite tracking, in .local/
	@mkdir -p .local
	PATH="$(CURDIR)/$(BIN):$$PATH" RUNNER_WORKSPACE=$(CURDIR)/.local/workspace RUNNER_REMOTE_URL=$(CURDIR)/.local/remote \
	MLFLOW_TRACKING_URI=sqlite:///$(CURDIR)/.local/mlflow.db MLFLOW_DISABLE_TELEMETRY=true \
	$(BIN)/python roles/dvc_runner/files/image/dvc_runner.py local . --data "$(DATA)" \
	  --data-param source=config.yaml:data_ingestion.source --data-param sha256=config.yaml:data_ingestion.sha256 \
	  --param 'config.yaml:data_ingestion.fallback="synthetic"'

.PHONY: test
test: root test-quick ## every test that a machine with Docker can run, fastest tier first
	@PATH="$(CURDIR)/$(BIN):$$PATH" tests/run infra minio molecule

.PHONY: test-quick
test-quick: .venv/dev ## the tiers that need no Docker: contracts, unit, lint, pipeline
	@PATH="$(CURDIR)/$(BIN):$$PATH" tests/run contracts unit lint pipeline

.PHONY: bench
bench: root .venv/dev ## measure, and write docs/benchmarks.md
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/bench/run.py $(ARGS)

.PHONY: lock
lock: .venv/dev ## write the lock files anew from the .in files
	@tests/lock $(BIN)/uv

.PHONY: root
root:
	@if [ "$$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null && [[ "$(ARGS)" != *-K* ]]; then
	  printf 'This needs root: you are uid %s and sudo %s. Run as root, run `sudo -v` first, or add ARGS=-K to be asked.\n' \
	    "$$(id -u)" "$$(command -v sudo >/dev/null && echo 'wants a password' || echo 'is not installed')" >&2
	  exit 1
	fi

.PHONY: root-and-data
root-and-data: root
	@if [[ "$(DATA)" == */* && "$(DATA)" != *://* && ! -f "$(DATA)" ]]; then
	  printf 'DATA=%s is not a file here: name one that is, a URL, or a source that the project knows.\n' "$(DATA)" >&2
	  exit 1
	fi

# --- environments: one .venv, each layer a lock file ---------------------------------------------------------------------

.venv/bin/uv: roles/base_image/files/uv.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python {v.major}.{v.minor} is too old: 3.11 or newer is needed; name one with make PYTHON=python3.12")'
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || {
	  sudo=$$([ "$$(id -u)" = 0 ] || echo sudo)
	  echo 'Installing python3-venv'
	  $$sudo apt-get update -q >/dev/null && $$sudo apt-get install -q -y --no-install-recommends python3-venv >/dev/null
	}
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

.venv/run: requirements.txt .venv/bin/uv
	@echo 'Installing Ansible in .venv'
	$(UV) -r $<
	touch $@

.venv/pipeline: requirements-pipeline.txt roles/dvc_runner/files/image/requirements.txt .venv/run
	@echo 'Installing the pipeline and DVC in .venv'
	$(UV) -r requirements-pipeline.txt -r roles/dvc_runner/files/image/requirements.txt
	touch $@

.venv/dev: requirements-dev.txt .venv/run
	@echo 'Installing the test tools in .venv'
	$(UV) -r $<
	touch $@
