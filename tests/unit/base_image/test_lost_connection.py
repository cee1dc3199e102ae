"""A build or a shipment whose other end goes away fails, says what it was about, and can go on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.conftest import ROLES

pytestmark = pytest.mark.processes

# ends as ssh does when its connection is gone: once the file `cut` is there
CONNECTION = """
DOCUMENTATION = '''
name: dying
short_description: This machine by a connection that is lost
options: {}
'''
import os
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local
class Connection(Local):
    transport = "dying"
    def _cut(self):
        if os.path.exists(os.environ["PLACE"] + "/cut"):
            raise AnsibleConnectionFailure("Connection to build-host closed by remote host.")
    def exec_command(self, cmd, in_data=None, sudoable=True):
        self._cut()
        answer = super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        self._cut()
        return answer
    def put_file(self, in_path, out_path):
        self._cut()
        super().put_file(in_path, out_path)
        self._cut()
"""

DOCKER = """#!/bin/sh
echo "$*" >> "$PLACE/calls"
case "$1" in
  image) grep -qx "$3" "$PLACE/images" ;;
  build) echo "Step 1/2 : RUN make"; sleep 0.2
    case "$(cat "$PLACE/fate")" in
      cut) touch "$PLACE/cut" ;;
      kill) kill -9 "$PPID"; exit 1 ;;
    esac
    echo local/web:1 >> "$PLACE/images" ;;
  save) echo layers > "$3"; [ "$(cat "$PLACE/fate")" != cut ] || touch "$PLACE/cut" ;;
  load) [ "$(cat "$PLACE/fate")" != full ] || { echo no space left on device >&2; exit 1; } ;;
esac
"""

PLAY = """
- hosts: build-host
  gather_facts: false
  tasks:
    - image_build:
        base: {{registry_image: ""}}
        builds: {{web: {{context: {place}/context}}}}
        names: {{bootstrap: {{base: local/base:1, images: {{web: local/web:1}}}}}}
        directory: {place}/images-of-host
        ca_bundle: {place}/context/Dockerfile
      when: task == 'build'
    - image_ship:
        references: [local/web:1, local/db:1]
      when: task == 'ship'
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build host of its own: an engine that has a base image, and the way to it."""
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text("FROM base\n")
    (tmp_path / "images").write_text("local/base:1\n")
    (tmp_path / "dying.py").write_text(CONNECTION)
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    (tmp_path / "play.yml").write_text(PLAY.format(place=tmp_path))
    monkeypatch.setenv("PLACE", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("ANSIBLE_CONNECTION_PLUGINS", str(tmp_path))
    monkeypatch.setenv("ANSIBLE_ACTION_PLUGINS", str(ROLES / "base_image/action_plugins"))
    monkeypatch.setenv("ANSIBLE_LIBRARY", str(ROLES / "base_image/library"))
    monkeypatch.setenv("ANSIBLE_MODULE_UTILS", str(ROLES / "docker/module_utils"))
    return tmp_path


def run(place: Path, task: str, fate: str) -> tuple[int, str]:
    """Run the task with that fate; the code it ended with, and what it said in one line."""
    (place / "fate").write_text(fate)
    (place / "cut").unlink(missing_ok=True)
    program = shutil.which("ansible-playbook", path=f"{Path(sys.executable).parent}")
    assert program
    here = [
        "-i",
        "build-host,",
        "-c",
        "dying",
        "-e",
        f"ansible_python_interpreter={sys.executable}",
    ]
    done = subprocess.run(
        [program, *here, "-e", f"task={task}", "play.yml"],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_a_connection_lost_while_images_build_fails_and_the_next_run_goes_on(place: Path) -> None:
    code, said = run(place, "build", "cut")
    assert code != 0
    assert "The connection to build-host was lost while these images were built (web" in said
    assert "closed by remote host" in said
    assert "run again" in said
    assert run(place, "build", "")[0] == 0
    builds = [line for line in (place / "calls").read_text().splitlines() if "build" in line]
    assert len(builds) == 1  # it was built behind the lost connection


def test_a_build_that_is_killed_fails_and_the_next_run_goes_on(place: Path) -> None:
    code, said = run(place, "build", "kill")
    assert code != 0
    assert "was killed on build-host" in said
    assert "while these images were built (web: 1/2 RUN make)" in said
    code, said = run(place, "build", "")
    assert code == 0
    assert "changed=1" in said


@pytest.mark.parametrize(
    ("fate", "reason"),
    [("cut", "closed by remote host"), ("full", "no space left on device")],
)
def test_images_that_do_not_arrive_are_named_and_shipped_by_the_next_run(
    fate: str, reason: str, place: Path
) -> None:
    code, said = run(place, "ship", fate)
    assert code != 0
    assert "Shipping local/web:1, local/db:1 (0 MiB) to build-host failed" in said
    assert reason in said
    code, said = run(place, "ship", "")
    assert code == 0
    assert "changed=1" in said
