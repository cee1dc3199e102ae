"""A host that cannot be reached has no verdict, and that is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# nothing listens on port 1
HOSTS = """\
all:
  vars: {platform_name: lab}
  hosts:
    near: {ansible_connection: local, ansible_become: false}
    far: {ansible_host: 127.0.0.1, ansible_port: 1, ansible_ssh_retries: 0, ansible_become: false}
"""
PLAYBOOK = f"""\
- hosts: all
  gather_facts: false
  tasks: [{{ansible.builtin.raw: "true"}}]
- import_playbook: {ROOT}/playbooks/verify.yml
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "this run did not get to far: mend what is said of it above"),
        (("--limit", "near"), "no host of the inventory runs any service"),
    ],
    ids=["all", "one"],
)
def test_of_hosts_out_of_reach_one_sentence_is_said_and_a_limit_is_kept(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "hosts.yml").write_text(HOSTS)
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    report = ("-e", f"verify_report={tmp_path / 'verify.json'}")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ansible",
            "playbook",
            "-i",
            "hosts.yml",
            "play.yml",
            *report,
            *words,
        ],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    # it is folded at the width of whatever terminal there is
    assert said in " ".join(done.stdout.split()), done.stdout + done.stderr
    assert "KeyError" not in done.stdout + done.stderr
