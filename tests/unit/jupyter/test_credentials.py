"""What the role writes for the clients in a notebook, as Ansible makes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit import as_ansible

ROLE = as_ansible.ROLES / "jupyter"
ANSIBLE = Path(sys.executable).parent / "ansible"
SHOW = ("-m", "ansible.builtin.debug", "-a", "var=__jupyter_pgpass")


@pytest.mark.processes
@pytest.mark.parametrize(
    ("password", "written"),
    [("plain-and-long", "plain-and-long"), ("a:b\\c", "a\\:b\\\\c"), ("{% x: %}", "{% x\\: %}")],
)
def test_a_password_of_any_characters_is_one_that_libpq_reads(
    tmp_path: Path, password: str, written: str
) -> None:
    given = {
        "jupyter_database": "notes",
        "jupyter_database_host": "db",
        "jupyter_database_password": {"__ansible_unsafe": password},
    }
    variables = [f"@{ROLE}/defaults/main.yml", f"@{ROLE}/vars/main.yml", json.dumps(given)]
    words = [word for each in variables for word in ("-e", each)]
    done = subprocess.run(
        [ANSIBLE, "localhost", "-i", "localhost,", "-c", "local", *words, *SHOW],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert f"db:*:*:jupyter:{written}" in lines
