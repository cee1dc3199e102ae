"""No secret is forgotten before it is known that another can take its place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.conftest import ROLES

HERE = ("-c", "local", "-e", "ansible_become=false")
GATED = f"@{ROLES.parent}/inventory/fraud/group_vars/all/gateway.yml"


def ansible(play: Path, secrets: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Play a playbook for a platform that has its secrets there."""
    program = Path(sys.executable).parent / "ansible-playbook"
    given = [] if "-i" in words else ["-i", "somewhere,"]
    given += ["-e", f"platform_secrets_directory={secrets}"]
    given += ["-e", f"ansible_python_interpreter={sys.executable}"]
    return subprocess.run(
        [program, *given, play, *words],
        cwd=ROLES.parent,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROLES.parent / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The secrets of a platform, and what a rotation that was killed left of others."""
    for name in ("lab", "lab.forgotten"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "minio_root_password").write_text("a word")
    return tmp_path / "lab"


def refused(secrets: Path, *words: str) -> str:
    """Try to rotate; returns why not, with every secret where it was."""
    done = ansible(ROLES.parent / "playbooks" / "rotate.yml", secrets, *words)
    assert done.returncode != 0
    assert [path.name for path in secrets.iterdir()] == ["minio_root_password"]
    return " ".join((done.stdout + done.stderr).split())


def test_a_misspelt_variable_is_told_before_any_secret_is_forgotten(secrets: Path) -> None:
    said = refused(secrets, *HERE, "-e", "minio_api_prot=1")
    assert "did you mean minio_api_port?" in said


def test_a_host_that_does_not_answer_keeps_its_secrets(secrets: Path, tmp_path: Path) -> None:
    (tmp_path / "ssh").write_text("#!/bin/sh\nexit 255\n")
    (tmp_path / "ssh").chmod(0o755)
    nowhere = f"ansible_become=false ansible_ssh_executable={tmp_path}/ssh"
    assert "unreachable=1" in refused(secrets, "-c", "ssh", "-e", nowhere)


@pytest.fixture
def gated(tmp_path: Path) -> tuple[str, ...]:
    """What names a platform of a gateway alone."""
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("gateway: {hosts: {somewhere: {platform_name: lab}}}")
    return ("-i", str(inventory), "-e", GATED)


@pytest.mark.parametrize(
    ("route", "told"),
    [
        ("{path: /x/, title: X}", "missing required arguments: upstream found in gateway_routes"),
        ("{path: /x/, title: X, upstream: nowhere}", "upstream 'nowhere' of /x/ is no address"),
    ],
)
def test_what_a_role_refuses_is_told_before_any_secret_is_forgotten(
    secrets: Path, tmp_path: Path, gated: tuple[str, ...], route: str, told: str
) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(f"gateway_routes: [{route}]\n")
    words = (*HERE, *gated, "-e", f"@{wrong}")
    done = ansible(ROLES.parent / "playbooks" / "rotate.yml", secrets, *words)
    assert done.returncode != 0
    assert told in " ".join((done.stdout + done.stderr).split())
    assert (secrets / "minio_root_password").read_text() == "a word"


ANEW = """
- import_playbook: {playbooks}/declare.yml
- hosts: all
  tasks:
    - set_fact:
        before: "{{{{ container_service_declared }}}}"
        promised: "{{{{ platform_promises }}}}"
    - import_role: {{name: platform, tasks_from: rotate}}
- import_playbook: {playbooks}/declare.yml
- hosts: all
  tasks:
    - assert:
        that:
          - container_service_declared.keys() == before.keys()
          - platform_promises == promised
          - container_service_declared.gateway.secrets.tls_key != before.gateway.secrets.tls_key
          - container_service_declared.gateway.secrets.tls_key == gateway_tls.key
"""


def test_what_was_declared_before_is_declared_anew_with_the_secrets_that_come_after(
    secrets: Path, tmp_path: Path, gated: tuple[str, ...]
) -> None:
    play = tmp_path / "play.yml"
    play.write_text(ANEW.format(playbooks=ROLES.parent / "playbooks"))
    done = ansible(play, secrets, *HERE, *gated)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (secrets / "minio_root_password").exists()


def test_all_are_forgotten_also_after_one_that_was_killed_and_where_there_are_none(
    secrets: Path, tmp_path: Path
) -> None:
    play = tmp_path / "play.yml"
    play.write_text(
        "- hosts: all\n  tasks:\n"
        "    - ansible.builtin.import_role: {name: platform, tasks_from: rotate}\n"
    )
    checked = ansible(play, secrets, *HERE, "--check")
    assert (checked.returncode, secrets.exists()) == (0, True), checked.stdout + checked.stderr
    for _ in range(2):
        done = ansible(play, secrets, *HERE)
        assert done.returncode == 0, done.stdout + done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["play.yml"]
