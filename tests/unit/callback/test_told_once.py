"""What went wrong is told once, at the end, whatever kind of failure it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LONG = "the disk of this machine is too small for it (web_disk_minimum): " + "free some, " * 20
# host, which is a task of its own -> what is told of it
CASES = {
    "asserts": (f"ansible.builtin.assert: {{that: false, quiet: true, fail_msg: '{LONG}'}}", LONG),
    "loops": (
        (
            "ansible.builtin.assert:"
            " {that: item != 2, quiet: true, fail_msg: 'item {{ item }} is bad'}\n  loop: [1, 2, 3]"
        ),
        "item 2 is bad",
    ),
    "undefines": ('ansible.builtin.debug: {msg: "{{ nowhere.x }}"}', "'nowhere' is undefined"),
    "refuses": (
        "ansible.builtin.debug: {msg: \"{{ 'odd' | refusing }}\"}",
        "See whether it refuses odd is no name of a project: correct it.",
    ),
    "breaks": (
        'ansible.builtin.debug: {msg: "{{ [] | refusing }}"}',
        "list index out of range This is a fault of the code or of a variable",
    ),
    "commands": (
        "ansible.builtin.command: sh -c 'echo out; echo the flux is not compensated >&2; exit 3'",
        "| the flux is not compensated",
    ),
    "crashes": ("crashing: {}", "RuntimeError: boom in the module"),
    "types": (
        (
            "ansible.builtin.validate_argument_spec: {argument_spec: {a: {type: int}},"
            " provided_arguments: {a: two}}"
        ),
        """argument 'a' is of type str and we were unable to convert to int: "'two'" cannot""",
    ),
    "hides": ("ansible.builtin.fail: {msg: TOPSECRET}\n  no_log: true", "hidden, for it may hold"),
    "reaches": (
        (
            "ansible.builtin.ping:\n  vars: {ansible_connection: ssh, ansible_host: 127.0.0.1,"
            " ansible_port: 1, ansible_ssh_retries: 0}"
        ),
        "ssh: connect to host 127.0.0.1 port 1",
    ),
}
FILTERS = """\
from ansible.errors import AnsibleFilterError


def refusing(value):
    value[0]
    raise AnsibleFilterError(f"{value} is no name of a project: correct it.")


class FilterModule:
    def filters(self):
        return {"refusing": refusing}
"""
PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: Try
      block:
        - ansible.builtin.include_tasks: rescued.yml
      rescue:
        - ansible.builtin.debug: {msg: the rescue ran}
    - ansible.builtin.fail: {msg: this is ignored}
      ignore_errors: true
    - ansible.builtin.include_tasks: "{{ inventory_hostname }}.yml"
"""


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment with this project's configuration of Ansible."""
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")},
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "80",
        **variables,
    }


def play(at: Path, *words: str, **variables: str) -> str:
    """Run a playbook with this project's configuration; what a terminal shows."""
    done = subprocess.run(
        ["ansible-playbook", "-i", "hosts.yml", "play.yml", *words],
        cwd=at,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode != 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A playbook in which every host fails in its own way."""
    at = tmp_path_factory.mktemp("play")
    (at / "library").mkdir()
    crash = "#!/usr/bin/python\nraise RuntimeError('boom in the module')\n"
    (at / "library/crashing.py").write_text(crash)
    (at / "filter_plugins").mkdir()
    (at / "filter_plugins/refusing.py").write_text(FILTERS)
    python = (
        "ansible_connection: local, ansible_python_interpreter: '{{ ansible_playbook_python }}'"
    )
    hosts = ", ".join(f"{name}: " for name in CASES)
    (at / "hosts.yml").write_text(f"all: {{hosts: {{{hosts}}}, vars: {{{python}}}}}\n")
    (at / "play.yml").write_text(PLAYBOOK)
    rescued = "- name: Fail where it is rescued\n  ansible.builtin.fail: {msg: this is rescued}\n"
    (at / "rescued.yml").write_text(rescued)
    for name, (task, _) in CASES.items():
        (at / f"{name}.yml").write_text(f"- name: See whether it {name}\n  {task}\n")
    return at


@pytest.fixture(scope="module")
def output(at: Path) -> str:
    """What a run of it shows."""
    return play(at)


@pytest.mark.parametrize("host", CASES)
def test_a_failure_is_told_once_after_the_recap_with_host_and_task(host: str, output: str) -> None:
    told = " ".join(CASES[host][1].split())
    said = " ".join(output.split())
    assert said.count(told) == 1
    before, _, after = said.partition("PLAY RECAP")
    assert told not in before
    assert f"Failed on {host}: See whether it {host}" in after


def test_what_is_rescued_or_ignored_is_no_failure_and_no_secret_is_told(output: str) -> None:
    assert "the rescue ran" in output
    assert "this is rescued" not in output
    assert "this is ignored" not in output
    assert "TOPSECRET" not in output
    assert "Traceback" not in output


def test_a_sentence_is_folded_at_the_width_of_the_terminal_with_no_quotes(output: str) -> None:
    end = output.partition("PLAY RECAP")[2].partition("Failed on")[2]
    assert max(len(line) for line in end.splitlines()) <= 80
    assert "\\n" not in end


def test_details_are_there_for_who_asks_and_a_callback_of_the_users_own_stays(at: Path) -> None:
    assert "Traceback" in play(at, "-v", "--limit", "crashes")
    said = play(at, "--limit", "asserts", ANSIBLE_STDOUT_CALLBACK="ansible.builtin.minimal")
    assert "Failed on" not in said
    assert "asserts | FAILED!" in said


def test_where_only_answers_are_asked_for_nothing_else_that_went_well_is_shown(at: Path) -> None:
    assert "included: " in play(at, "--limit", "asserts")
    said = play(at, "--limit", "asserts", ANSIBLE_DISPLAY_OK_HOSTS="no")
    assert "included: " not in said
    assert "Failed on asserts" in said


def test_who_reads_through_a_pipe_reads_at_once_what_a_long_run_says(tmp_path: Path) -> None:
    (tmp_path / "play.yml").write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.debug: {msg: the first word}\n"
        f"    - ansible.builtin.wait_for: {{path: '{tmp_path}/read', timeout: 20}}\n"
    )
    with subprocess.Popen(
        ["ansible-playbook", "-c", "local", "play.yml"],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout
        assert any("the first word" in line for line in running.stdout)
        (tmp_path / "read").touch()
        running.stdout.read()
        assert running.wait() == 0, "it was read when the run was over"


FAIL = "ansible.builtin.fail: {msg: it broke}"


@pytest.mark.parametrize(("then", "left"), [([FAIL], True), (["free:", FAIL], False), ([], False)])
def test_what_stays_where_a_run_fails_is_told_after_the_failure_and_else_nowhere(
    tmp_path: Path, then: list[str], left: bool
) -> None:
    (tmp_path / "action_plugins").mkdir()
    for name, said in (("hold", "The door is locked: turn the key."), ("free", "")):
        (tmp_path / f"action_plugins/{name}.py").write_text(
            "from ansible.plugins.action import ActionBase\n"
            "class ActionModule(ActionBase):\n"
            "    def run(self, tmp=None, task_vars=None):\n"
            f"        return {{'changed': False, 'if_it_fails_later': {said!r}}}\n"
        )
    tasks = "".join(f"    - {task}\n" for task in ["hold:", *then])
    (tmp_path / "play.yml").write_text(
        f"- hosts: localhost\n  gather_facts: false\n  tasks:\n{tasks}"
    )
    done = subprocess.run(
        ["ansible-playbook", "play.yml"],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert bool(done.returncode) is (FAIL in then), done.stdout + done.stderr
    _, _, end = done.stdout.partition("Failed on localhost")
    assert ("Left on localhost\n  The door is locked: turn the key." in end) is left
    assert done.stdout.count("The door is locked") == left
