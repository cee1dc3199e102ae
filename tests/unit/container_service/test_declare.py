"""A container is declared by a role, and what is wrong with the declaration is told by its key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.conftest import ROLES

pytestmark = pytest.mark.processes

SECRET = "TOPSECRET-OF-NOBODY"  # noqa: S105 - of nobody
GOOD: dict[str, Any] = {
    "name": "web",
    "build": {"context": "files/image"},
    "secrets": {"key": SECRET},
    "user": "10001:10001",
    "healthcheck": {"test": ["CMD", "true"]},
    "mem_limit": "64m",
}
DECLARED = "container_service_declared.values() | map(attribute='build.context') | join"


def declare(place: Path, *specs: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run a playbook whose role `web` declares containers, and show where their builds are."""
    tasks = place / "roles" / "web" / "tasks" / "main.yml"
    tasks.parent.mkdir(parents=True)
    tasks.write_text(
        json.dumps(
            [
                {
                    "ansible.builtin.import_role": {"name": "container_service"},
                    "vars": {"container_service_spec": spec},
                }
                for spec in specs
            ]
        )
    )
    show = {"ansible.builtin.debug": {"msg": "contexts: {{ " + DECLARED + " }}"}}
    play = {"hosts": "localhost", "gather_facts": False, "roles": ["web"], "post_tasks": [show]}
    (place / "play.yml").write_text(json.dumps([play]))
    return subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-vvv", "-i", "localhost,", "play.yml"],
        cwd=place,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROLES.parent / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": f"{place / 'roles'}:{ROLES}",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_build_lies_in_the_role_that_declares_and_no_secret_is_shown(tmp_path: Path) -> None:
    done = declare(tmp_path, GOOD)
    assert done.returncode == 0, done.stdout
    assert f"contexts: {tmp_path / 'roles/web/files/image'}" in done.stdout
    assert SECRET not in done.stdout


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mem_limt": "1g"}, "container_service_spec.mem_limt"),
        ({"mem_limit": None}, "missing required arguments: mem_limit"),
        ({"stage": "late"}, "value of stage must be one of: data, job, app, got: late"),
        ({"ports": {"9000": "9000"}}, "argument 'ports' is of type"),
        ({"healthcheck": {"tset": ["CMD", "true"]}}, "container_service_spec.healthcheck.tset"),
    ],
)
def test_what_is_wrong_with_a_declaration_is_told_and_no_secret_is(
    wrong: dict[str, Any], said: str, tmp_path: Path
) -> None:
    spec = {key: value for key, value in {**GOOD, **wrong}.items() if value is not None}
    done = declare(tmp_path, spec)
    assert done.returncode
    told = " ".join(done.stdout.partition("PLAY RECAP")[2].split())
    assert said in told
    assert SECRET not in done.stdout


def test_a_second_container_of_one_name_is_refused(tmp_path: Path) -> None:
    done = declare(tmp_path, GOOD, GOOD)
    assert done.returncode
    assert "'web' is declared twice, by role web and by role web" in " ".join(done.stdout.split())
    assert SECRET not in done.stdout
