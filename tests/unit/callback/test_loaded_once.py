"""What the templates of tasks use is loaded once in a run, and not by the process of each task."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[3]
FILTERS = """\
with open("imported", "a") as seen:
    seen.write("once\\n")
class FilterModule:
    def filters(self):
        return {"shouted": str.upper}
"""
TASKS = "\n".join(f"- ansible.builtin.debug: {{msg: \"{{{{ '{n}' | shouted }}}}\"}}" for n in "abc")


def test_a_filter_of_a_role_is_imported_once_and_not_by_each_task(tmp_path: Path) -> None:
    files = {
        "roles/loud/filter_plugins/loud.py": FILTERS,
        "roles/loud/tasks/main.yml": TASKS,
        "play.yml": "- {hosts: localhost, gather_facts: false, roles: [loud]}\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "play.yml"],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"msg: {word}" in done.stdout for word in "ABC")
    assert (tmp_path / "imported").read_text() == "once\n"
