# The verbs of the platform. `make help` lists them; those that change a platform are one playbook each.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
.DELETE_ON_ERROR:
.NOTPARALLEL:

# --- the shell -----------------------------------------------------------------------------------------------------------
# A run depends on nothing of the shell but what `make help` names and where packages, certificates and keys come from.
# What is another project's, or would change what a program does or where it looks, is cleared here for all that make
# starts; playbooks/lookup_plugins/clean_shell.py does the same on hosts.
unexport $(filter-out ANSIBLE_VAULT_% ANSIBLE_PRIVATE_KEY_FILE ANSIBLE_HOST_KEY_CHECKING ANSIBLE_NOCOLOR \
  ANSIBLE_FORCE_COLOR DOCKER_CONFIG GIT_CONFIG_% PIP_CERT PIP_CLIENT_CERT PIP_CONFIG_FILE PIP_DEFAULT_TIMEOUT \
  PIP_EXTRA_INDEX_URL PIP_INDEX_URL PIP_PROXY PIP_TRUSTED_HOST UV_CACHE_DIR UV_CONFIG_FILE UV_DEFAULT_INDEX \
  UV_EXTRA_INDEX_URL UV_HTTP_TIMEOUT UV_INDEX UV_INDEX_% UV_INSECURE_HOST UV_LINK_MODE UV_NATIVE_TLS UV_SYSTEM_CERTS,\
  $(filter ANSIBLE_% AWS_% BASH_ENV BUILDKIT_% BUILDX_% CDPATH COMPOSE_% CONDA_% DOCKER_% DVC_% ENV GIT_% GREP_% LANGUAGE \
  LC_% MLFLOW_% PIP_% PYTHON% RUNNER_% TAR_OPTIONS UV_% VIRTUAL_ENV,$(.VARIABLES)))
# Ansible works in UTF-8 only, and this locale is on every machine
export LC_ALL := C.UTF-8
# where there is no home to write to, one of this checkout
ifneq ($(shell [ -w "$${HOME:-}" ] || echo none),)
export HOME := $(CURDIR)/.cache/home
$(shell mkdir -p '$(HOME)')
endif

PYTHON    ?= python3
SYSTEM    ?= local
INVENTORY ?= inventory/$(SYSTEM)
# set here, so that a shell's own NAME or PROJECT is none of ours
NAME      :=
FROM      := local
PROJECT   :=
DATA      ?=
ARGS      ?=
CONFIRM   ?=
RUNS      :=
SET       :=
GRID      :=
FORCE     :=
RUN       :=
KEEP      :=
OFF       :=
KEEP_DATA ?=
IMAGES    ?=
comma     := ,

# --- the words of a command ----------------------------------------------------------------------------------------------
# which verbs read a word: the others would pass it over, and who typed it would not know
READ_BY_DATA      := up check pipeline pipeline-local test test-full test-quick bench
READ_BY_NAME      := new
READ_BY_FROM      := new
READ_BY_SET       := pipeline
READ_BY_GRID      := pipeline
READ_BY_FORCE     := pipeline
READ_BY_RUNS      := diff
READ_BY_RUN       := reproduce
READ_BY_KEEP      := prune
READ_BY_OFF       := timer
READ_BY_KEEP_DATA := destroy
READ_BY_IMAGES    := destroy
READ_BY_CONFIRM   := destroy prune
READ_BY_PROJECT   := up check pipeline verify save env status diff reproduce shell cancel timer
READ_BY_ARGS      := $(READ_BY_PROJECT) logs prune rotate destroy bench root
ONLY_SOME_READ := DATA NAME FROM SET GRID FORCE RUNS RUN KEEP OFF KEEP_DATA IMAGES CONFIRM PROJECT ARGS
WORDS := $(ONLY_SOME_READ) SYSTEM INVENTORY PYTHON
close = $(shell $(PYTHON) -c 'import difflib, sys; print(*difflib.get_close_matches(sys.argv[1].upper(), sys.argv[2:], 1))' $(1) $(WORDS) 2>/dev/null)
meant = $(if $(1),did you mean $(1)?,`make help` names them$(comma) and a variable of the environment stands before `make`)
# PLATFORM was one, and is told of below; what another make was told came here too
ifeq ($(MAKELEVEL),0)
$(foreach word,$(filter-out $(WORDS) PLATFORM,$(.VARIABLES)),$(if $(filter command,$(origin $(word))),\
  $(error $(word)= is a word that no verb reads, and nothing was done: $(call meant,$(call close,'$(word)')))))
endif
# an unset variable of a script: all projects are not what one without a name means
$(foreach word,PROJECT DATA SET GRID RUN RUNS,$(if $(filter command,$(origin $(word))),$(if $(value $(word)),,\
  $(error $(word)= is empty, and nothing was done: give it a value, or leave it out))))
GIVEN := $(foreach word,$(ONLY_SOME_READ),\
  $(if $(filter command,$(origin $(word))),$(if $(value $(word)),$(word))))
$(foreach word,$(GIVEN),$(if $(filter $(READ_BY_$(word)),$(MAKECMDGOALS)),,\
  $(error $(word)= says nothing to `make $(MAKECMDGOALS)`, and nothing was done: it is for $(READ_BY_$(word)))))
define yes-or-no
$(if $(filter $(READ_BY_$(1)),$(MAKECMDGOALS)),$(if $(filter-out yes no true false,$($(1))),\
  $(error $(1)=$($(1)) is neither yes nor no, and nothing was done: say $(1)=yes, or leave it out)))
override $(1) := $(if $(filter yes true,$($(1))),yes)
endef
$(foreach word,FORCE OFF KEEP_DATA IMAGES CONFIRM,$(eval $(call yes-or-no,$(word))))
# as it was typed: a dollar in a file's name is no variable of make
override DATA := $(value DATA)
export CONFIRM DATA KEEP_DATA IMAGES

# --- which platform ------------------------------------------------------------------------------------------------------
# an unset variable of a script is no choice, and neither is a directory of several inventories, which would be merged
CHOSEN := $(foreach word,SYSTEM INVENTORY,$(if $(filter file,$(origin $(word))),,$(word)))
$(foreach word,$(CHOSEN),$(if $(strip $($(word))),,\
  $(error $(word)= is empty, and nothing was done: name one, or leave it out for inventory/local)))
$(if $(word 2,$(CHOSEN)),\
  $(error SYSTEM=$(SYSTEM) and INVENTORY=$(INVENTORY) both name an inventory, and nothing was done: leave one of them out))
$(if $(wildcard $(addsuffix /*/hosts.yml,$(INVENTORY))),\
  $(error $(INVENTORY) is a directory of several inventories, and nothing was done: name one of them))

# what another verb must be told to mean the same one
OF := $(if $(filter INVENTORY,$(CHOSEN)), INVENTORY=$(INVENTORY),$(if $(filter-out local,$(SYSTEM)), SYSTEM=$(SYSTEM)))

BIN      := .venv/bin
# a directory by its absolute path (./churn, not churn), a git URL or a name as it is
PROJECT_ARG = $(if $(PROJECT),-e '{"dvc_runner_project": "$(or $(if $(findstring /,$(PROJECT))$(filter .,$(PROJECT)),$(realpath $(PROJECT))),$(PROJECT))"}')
PLAYBOOK := PATH="$(CURDIR)/$(BIN):$$PATH" ANSIBLE_CONFIG=ansible.cfg $(BIN)/ansible-playbook -i $(INVENTORY) $(PROJECT_ARG)
# a question to each project's runner: only the answers are shown
listed    = "$(firstword $(1))"$(foreach word,$(wordlist 2,$(words $(1)),$(1)),$(comma) "$(word)")
ASK       = ANSIBLE_DISPLAY_OK_HOSTS=no ANSIBLE_DISPLAY_SKIPPED_HOSTS=no $(PLAYBOOK) playbooks/ask.yml \
  -e '{"dvc_runner_question": [$(call listed,$(1))]}' $(ARGS)
PARAMS    = $(if $(SET),-e '{"dvc_runner_set": [$(call listed,$(SET))]}') \
  $(if $(GRID),-e '{"dvc_runner_grid": [$(call listed,$(GRID))]}')
COMPOSE  := $(BIN)/ansible all -i $(INVENTORY) -m ansible.builtin.command -a
# a file by its absolute path, a URL or the name of a known source as it is; quoted, and never a template
DATA_ARG := $(if $(DATA),-e "{dvc_runner_data: !unsafe $$($(BIN)/python -c 'import json, os; \
  data = os.environ["DATA"]; \
  print(json.dumps(os.path.abspath(data) if os.path.exists(data) else data, ensure_ascii=False))')}")
UV       := $(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes
ifndef UV_DEFAULT_INDEX
UV_DEFAULT_INDEX := $(or $(PIP_INDEX_URL),$(shell $(PYTHON) -m pip config get global.index-url 2>/dev/null || echo https://pypi.org/simple))
endif
export UV_DEFAULT_INDEX
export UV_SYSTEM_CERTS ?= true
# a path or a comma-separated list of hosts; nothing is made for what is neither
ifeq ($(wildcard $(INVENTORY)),)
ifeq ($(findstring $(comma),$(INVENTORY)),)
$(error $(INVENTORY) is no inventory: SYSTEM is one of $(notdir $(patsubst %/,%,$(wildcard inventory/*/))), and make new NAME=<name> writes another)
endif
endif

# what picked a platform once would be passed over, and `destroy` would take another one
ifneq ($(and $(PLATFORM),$(or $(filter command,$(origin PLATFORM)),$(wildcard inventory/$(PLATFORM) inventory/*/.secrets/$(PLATFORM)))),)
$(error PLATFORM=$(PLATFORM) is gone, one inventory is one platform: leave it out, SYSTEM=$(PLATFORM) picks one, and make new NAME=$(PLATFORM) writes one, also for a platform that runs already)
endif

.PHONY: help
help: ## list the targets
	@printf 'usage: make TARGET [DATA=path|url|name] [PROJECT=path|url|name] [SYSTEM=local] [INVENTORY=path] [ARGS="-e name=value"]\n\n'
	grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/; s/\$$\$$/$$/' | sort | awk -F'\t' '{ printf "  %-15s %s\n", $$1, $$2 }'

.PHONY: new
new: .venv/run ## write the inventory of a further platform (NAME=staging, FROM=local); then make up SYSTEM=staging
	@PYTHONPATH=src $(BIN)/python -m platform_inventory.new '$(NAME)' '$(FROM)'

.PHONY: up
up: root-and-data .venv/run ## bare host -> platform running, pipeline run, result verified
	@$(PLAYBOOK) site.yml $(DATA_ARG) $(ARGS)

.PHONY: check
check: .venv/run ## show what `make up` would change
	@$(PLAYBOOK) site.yml --check --diff $(DATA_ARG) $(ARGS)

.PHONY: pipeline
pipeline: root-and-data .venv/run ## run pipelines where that is needed (PROJECT=churn, SET="train.lr=0.1", GRID="lr=1,2 n=3,4"; FORCE=yes: every stage)
	@$(PLAYBOOK) playbooks/pipeline.yml $(DATA_ARG) $(PARAMS) $(if $(FORCE),-e dvc_runner_force=true) $(ARGS)

.PHONY: verify
verify: root .venv/run ## prove the result; table, reports/verify.json, exit 0 where it holds
	@PYTHONPATH=src $(BIN)/python -m platform_verify -i $(INVENTORY) $(PROJECT_ARG) $(ARGS)

.PHONY: save
save: root .venv/run ## bring dvc.lock, metrics and data of the last run into this checkout
	@$(PLAYBOOK) playbooks/save.yml $(ARGS)
	printf 'To keep them: git add dvc.lock .gitignore, and what git status shows of metrics and requirements-lock.txt; then git commit\n'

.PHONY: env
env: .venv/run ## print exports for a client: eval "$$(make -s env)"
	@file=$$(mktemp); trap 'rm -f "$$file"' EXIT
	# Ansible takes the home of the accounts' list, which need not be there
	said=$$(ANSIBLE_REMOTE_TMP="$$HOME/.ansible/tmp" $(PLAYBOOK) playbooks/env.yml -e ansible_become=false -e dvc_runner_env_file="$$file" $(ARGS)) || { printf '%s\n' "$$said" >&2; exit 1; }
	cat "$$file"
	at=$$(. "$$file" && printf %s "$${MLFLOW_TRACKING_URI:-}")
	[ -z "$$at" ] || $(BIN)/python -c 'import socket, sys; from urllib.parse import urlsplit; at = urlsplit(sys.argv[1])
	socket.create_connection((at.hostname, at.port or {"https": 443}.get(at.scheme, 80)), 3)' "$$at" 2>/dev/null ||
	  printf 'Nothing answers at %s: `make up%s` brings the platform up.\n' "$$at" '$(OF)' >&2

.PHONY: status
status: root .venv/run ## containers and their health, and each project's last run and state
	@$(COMPOSE) 'docker --host unix:///var/run/docker.sock compose --project-name {{ platform_name | default("mlops") }} ps --all' $(ARGS)
	$(call ASK,status)

.PHONY: diff
diff: root .venv/run ## parameters, metrics and outputs of a project's last two runs (PROJECT=churn; RUNS="3 5")
	@$(call ASK,diff $(RUNS))

.PHONY: logs
logs: root .venv/run ## the last lines of every container
	@$(COMPOSE) 'docker --host unix:///var/run/docker.sock compose --ansi never --project-name {{ platform_name | default("mlops") }} logs --tail 50 --no-color' $(ARGS)

.PHONY: reproduce
reproduce: root .venv/run ## run an earlier run of a project again and compare its outputs (PROJECT=wine RUN=3)
	@$(call ASK,reproduce $(or $(RUN),$(error RUN= is missing: make reproduce PROJECT=wine RUN=3)))

.PHONY: shell
shell: root .venv/run ## a shell in the place of a project's stages, on the platform's own host (PROJECT=wine)
	@name=$$($(BIN)/ansible dvc_runner -i $(INVENTORY) -m ansible.builtin.debug \
	  -a 'msg=container={{ platform_name | default("mlops") }}-dvc-runner-$(or $(PROJECT),$(error PROJECT= is missing: make shell PROJECT=wine))' \
	  | sed -n 's/.*container=\([a-z0-9-]*\).*/\1/p' | head -n 1)
	exec docker --host unix:///var/run/docker.sock exec "-i$$([ ! -t 0 ] || printf t)" "$$name" dvc_runner shell $(ARGS)

.PHONY: cancel
cancel: root .venv/run ## end what waits and runs of a project (PROJECT=churn); finished stages are kept
	@$(call ASK,$(if $(PROJECT),cancel,$(error PROJECT= is missing: make cancel PROJECT=churn)))

.PHONY: prune
prune: root .venv/run ## remove images, volumes and cached data that nothing uses (KEEP=10 runs; CONFIRM=yes, ARGS=--check)
	@$(PLAYBOOK) playbooks/prune.yml $(if $(KEEP),-e dvc_runner_keep=$(KEEP)) $(ARGS)

.PHONY: rotate
rotate: root .venv/run ## make every generated password, key, token and certificate anew, once no run is in work
	@$(PLAYBOOK) playbooks/rotate.yml $(ARGS)
	$(if $(filter --check -C,$(ARGS)),,printf 'What clients were given is worth nothing now: eval "$$(make -s env%s)" gives the new, and who trusts the ca.crt of a gateway fetches it anew.\n' '$(OF)')

.PHONY: timer
timer: .venv/run ## have systemd converge the platform each week, which renews its certificates (OFF=yes: no more)
	@$(PLAYBOOK) playbooks/timer.yml $(if $(filter yes,$(OFF)),-e platform_timer_state=absent) $(ARGS)

.PHONY: destroy
destroy: root .venv/run ## remove the platform (CONFIRM=yes, KEEP_DATA=yes keeps volumes, IMAGES=yes removes images)
	@if [ "$(CONFIRM)" != yes ]; then
	  printf 'This removes the platform of %s%s. Go on? [y/N] ' '$(INVENTORY)' '$(if $(filter yes,$(KEEP_DATA)),, with all its data)'
	  read -r answer || answer=no
	  case "$$answer" in y|Y|yes) ;; *) echo 'Nothing was removed.'; exit 1 ;; esac
	fi
	CONFIRM=yes $(PLAYBOOK) playbooks/destroy.yml $(ARGS)
	$(if $(wildcard $(INVENTORY)/group_vars/all/0-*),printf '%s stays: `make up %s` brings its platform up again.\n' '$(INVENTORY)' '$(if $(filter file,$(origin INVENTORY)),SYSTEM=$(SYSTEM),INVENTORY=$(INVENTORY))')

.PHONY: pipeline-local
pipeline-local: .venv/pipeline ## the pipeline without Docker and servers: local remote, SQLite tracking, in .local/
	@mkdir -p .local
	PATH="$(CURDIR)/$(BIN):$$PATH" RUNNER_WORKSPACE=$(CURDIR)/.local/workspace RUNNER_REMOTE_URL=$(CURDIR)/.local/remote \
	MLFLOW_TRACKING_URI=sqlite:///$(CURDIR)/.local/mlflow.db MLFLOW_DISABLE_TELEMETRY=true \
	$(BIN)/python roles/dvc_runner/files/image/dvc_runner local . --data "$$DATA" \
	  --data-param source=config.yaml:data_ingestion.source --data-param sha256=config.yaml:data_ingestion.sha256 \
	  --param 'config.yaml:data_ingestion.fallback="synthetic"'

.PHONY: test
test: root test-quick ## the tests that a machine with Docker can run, fastest tier first
	@PATH="$(CURDIR)/$(BIN):$$PATH" tests/run infra minio molecule

.PHONY: test-full
test-full: test ## as test, and the largest systems on a host over SSH: minutes longer
	@PATH="$(CURDIR)/$(BIN):$$PATH" tests/run systems

.PHONY: test-quick
test-quick: .venv/dev ## the tiers that need no Docker: contracts, unit, lint, pipeline
	@PATH="$(CURDIR)/$(BIN):$$PATH" tests/run contracts unit lint pipeline

.PHONY: bench
bench: root .venv/dev ## measure, and write docs/benchmarks.md
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=src:. $(BIN)/python tests/bench/run.py $(ARGS)

.PHONY: docs
docs: .venv/run ## write docs/roles/ anew from the roles' argument_specs
	@$(BIN)/python -m tests.contracts.pages

.PHONY: lock
lock: .venv/dev ## write the lock files anew from the .in files
	@tests/lock $(BIN)/uv

.PHONY: root
# for this machine alone: another one has users of its own. Preflight says the same, but only once Ansible is installed
root:
	@if [[ "$(ARGS)" != *-K* && "$(ARGS)" != *become-pass* ]] && grep -rqs 'ansible_connection: *local' $(INVENTORY) &&
	  ! grep -Erqs 'ansible_(become|sudo)_pass' $(INVENTORY); then
	  $(PYTHON) roles/platform/filter_plugins/root.py
	fi

.PHONY: root-and-data
root-and-data: root
	@if [[ "$$DATA" == *[./]* && "$$DATA" != *://* && ! -f "$$DATA" ]]; then
	  printf 'DATA=%s is not a file here: name one that is, a URL, or a source that the project knows.\n' "$$DATA" >&2
	  exit 1
	fi

# --- environments: one .venv, each layer a lock file ---------------------------------------------------------------------

.venv/bin/uv: roles/base_image/files/uv.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python {v.major}.{v.minor} is too old: 3.11 or newer is needed; name one with make PYTHON=python3.12")'
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || {
	  sudo=$$([ "$$(id -u)" = 0 ] || echo sudo)
	  echo 'Installing python3-venv'
	  { $$sudo apt-get update -q && $$sudo apt-get install -q -y --no-install-recommends python3-venv; } >/dev/null || {
	    echo 'python3-venv is missing and could not be installed: ask for it, or name a Python that has it: make PYTHON=...' >&2
	    exit 1
	  }
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
