"""Adding a service is its roles, its variables and its group's line: nothing else is changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.contracts import rules, tree
from tests.toy import toy

ROOT = Path(__file__).parents[2]
DECLARED = """\
- import_playbook: {copy}/playbooks/declare.yml
- hosts: all
  gather_facts: false
  tasks: [{{debug: {{msg: "{{{{ platform_promises.services | to_json }}}}"}}}}]
"""
PORTS = ("minio_api_port", "minio_console_port", "mlflow_port")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with two more services."""
    target = tmp_path_factory.mktemp("added") / "checkout"
    for path in tree.files(ROOT):
        place = target / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, place, follow_symlinks=False)
    toy.add(target)
    return target


def play(copy: Path, playbook: str, *words: str) -> str:
    """Run a playbook of the copy and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", playbook, *words],
        cwd=copy,
        env={**os.environ, "ANSIBLE_CONFIG": str(copy / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_run_would_bring_it_up(copy: Path) -> None:
    # a name and ports that no platform of this machine has
    own = {"platform_name": "toys", **dict.fromkeys(PORTS, "")}
    (copy / "inventory/local/group_vars/all/zz-own.yml").write_text(json.dumps(own))
    said = play(copy, "site.yml", "--check", "-e", "platform_memory_minimum=1")
    assert "Would start or recreate what changed of" in said
    for service in ("toystore", "toy-migrate", "toy"):
        assert service in said.partition("Would start or recreate")[2]


def test_the_verdict_expects_it(copy: Path) -> None:
    (copy / "declared.yml").write_text(DECLARED.format(copy=copy))
    said = " ".join(play(copy, "declared.yml").split())
    for word in ("toystore", "toy-migrate", "a toy starts few processes", "minio"):
        assert word in said


def test_a_container_costs_a_run_one_task(copy: Path) -> None:
    (copy / "declared.yml").write_text(DECLARED.format(copy=copy))
    said = play(copy, "declared.yml")
    declared = re.findall(r'"[\w-]+": \{"stage"', " ".join(said.split()))
    assert len(declared) >= len(["toystore", "toy-migrate", "toy"])
    assert len(re.findall(r"^TASK \[container_service :", said, re.MULTILINE)) == len(declared)


def test_the_readme_is_asked_to_name_it(copy: Path) -> None:
    said = "\n".join(rules.readme_lists_what_runs(copy))
    for service in ("toystore", "toy-migrate", "toy"):
        assert service in said
