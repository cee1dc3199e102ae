"""No secret is forgotten before it is known that another can take its place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.conftest import ROLES

HERE = ("-c", "local", "-e", "ansible_become=false")


def ansible(play: Path, secrets: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Play a playbook for a platform that has its secrets there."""
    program = Path(sys.executable).parent / "ansible-playbook"
    given = ["-i", "somewhere,", "-e", f"platform_secrets_directory={secrets}"]
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
