"""`make timer` as a user types it, and what `make destroy` leaves of it. No platform is needed.

systemctl is a recorder here, and units lie in a directory of the test's own: on a machine with
systemd a test would leave a timer that brings up a platform. A real one is in
molecule/default/timer.yml.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.infra.conftest import ASKED, BIN, ROOT, Stack, stack
from tests.infra.faults_support import Outcome

UNITS = ["platform-mlops-timer.service", "platform-mlops-timer.timer"]
SYSTEMCTL = """\
#!/bin/sh
echo "$*" >>"{log}"
case "$*" in
  *show*) printf 'LoadState=loaded\nActiveState=active\n' ;;
  *is-enabled*) echo enabled ;;
esac
"""


@dataclass(frozen=True)
class Machine:
    """What runs Ansible: its units, and what systemctl was asked for."""

    platform: Stack
    units: Path
    log: Path

    def make(
        self, *words: str, systemd: bool = True, env: Mapping[str, str] | None = None
    ) -> Outcome:
        """Run make for this platform, in a shell with these variables, and return how it ended."""
        own = {
            "__platform_timer_systemd": systemd,
            "__platform_timer_directory": str(self.units),
        }
        given = self.log.with_suffix(".json")
        given.write_text(json.dumps(own))
        kept = {
            key: value
            for key, value in os.environ.items()
            if key not in ASKED and not key.startswith(("PIP_", "UV_", "GIT_CONFIG_"))
        }
        path = f"{self.log.parent}{os.pathsep}{BIN}{os.pathsep}{kept['PATH']}"
        arguments = [f"INVENTORY={self.platform.inventory}", f"ARGS=-e @{given}"]
        for word in words:
            if word.startswith("ARGS="):
                arguments[1] += f" {word.removeprefix('ARGS=')}"
            else:
                arguments.append(word)
        done = subprocess.run(
            # the environment that this test runs in is the one
            ["make", "--old-file=.venv/run", *arguments],
            cwd=ROOT,
            env={**kept, "PATH": path, "CONFIRM": "yes", "ANSIBLE_NOCOLOR": "1", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return Outcome(done.returncode, done.stdout + done.stderr)

    @property
    def left(self) -> list[str]:
        """The units that are there."""
        return sorted(path.name for path in self.units.iterdir())

    @property
    def asked(self) -> list[str]:
        """What systemctl was told to do, in order, without questions."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if not {"show", "is-enabled"} & set(line.split())]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with systemd and no units."""
    platform = stack("mlops-timer", 9240, tmp_path)
    units, log = tmp_path / "units", tmp_path / "asked.log"
    units.mkdir()
    (tmp_path / "systemctl").write_text(SYSTEMCTL.format(log=log))
    (tmp_path / "systemctl").chmod(0o755)
    return Machine(platform, units, log)


def test_without_systemd_it_says_the_line_for_cron_and_changes_nothing(machine: Machine) -> None:
    outcome = machine.make("timer", systemd=False)
    assert outcome.code != 0
    outcome.assert_says("No systemd runs on this machine, so nothing was installed")
    (line,) = (each for each in outcome.text.splitlines() if each.strip().startswith("0 4 * * 1"))
    assert line.endswith(f"--inventory={machine.platform.inventory}")
    assert (machine.left, machine.asked, outcome.changed) == ([], [], 0)
    # from another shell, whose line would be another one
    other = machine.make("timer", "OFF=yes", systemd=False, env={"GOPROXY": "https://go.example"})
    assert other.code != 0
    other.assert_says("so nothing was removed: take out of cron, with `crontab -e`, the line that")
    (known,) = (each.strip() for each in other.text.splitlines() if "--inventory=" in each)
    assert "GOPROXY" not in known
    assert known in line


def test_check_mode_shows_both_units_and_writes_none(machine: Machine) -> None:
    outcome = machine.make("timer", "ARGS=--check --diff")
    assert outcome.code == 0, outcome.text
    outcome.assert_says(f"+WorkingDirectory={ROOT}", "+OnCalendar=weekly")
    assert (machine.left, machine.asked) == ([], [])


def test_it_is_installed_once_and_off_removes_it(machine: Machine) -> None:
    outcome = machine.make("timer")
    assert (outcome.code, machine.left) == (0, UNITS), outcome.text
    assert f"restart {UNITS[1]}" in machine.asked
    assert machine.make("timer").changed == 0
    outcome = machine.make("timer", "OFF=yes")
    assert (outcome.code, machine.left) == (0, []), outcome.text
    assert machine.asked[-3:] == [f"disable {UNITS[1]}", f"stop {UNITS[1]}", "daemon-reload"]
    assert machine.make("timer", "OFF=yes").changed == 0


@pytest.mark.parametrize("kept", ["yes", "no"])
def test_a_destroyed_platform_is_not_brought_up_again(machine: Machine, kept: str) -> None:
    machine.make("timer")
    assert machine.left == UNITS
    outcome = machine.make("destroy", env={"KEEP_DATA": kept})
    assert (outcome.code, machine.left) == (0, []), outcome.text
    assert machine.asked[-3:] == [f"disable {UNITS[1]}", f"stop {UNITS[1]}", "daemon-reload"]


def test_destroy_asks_nothing_of_a_machine_without_a_timer(machine: Machine) -> None:
    outcome = machine.make("destroy", systemd=False)
    assert (outcome.code, machine.asked) == (0, []), outcome.text
    assert "systemd" not in outcome.text


def test_the_timer_of_another_checkout_is_named_and_stays(machine: Machine, tmp_path: Path) -> None:
    machine.make("timer")
    service = machine.units / UNITS[0]
    theirs = service.read_text().replace(f"Directory={ROOT}", f"Directory={tmp_path}")
    service.write_text(theirs)
    for words in (("timer",), ("timer", "OFF=yes")):
        outcome = machine.make(*words)
        assert outcome.code != 0
        outcome.assert_says(f"{service} is that of {machine.platform.inventory} in {tmp_path}")
    assert machine.make("destroy").code == 0
    assert (machine.left, service.read_text()) == (UNITS, theirs)


def test_a_timer_whose_checkout_is_gone_is_nobodys(machine: Machine, tmp_path: Path) -> None:
    machine.make("timer")
    service = machine.units / UNITS[0]
    ours = service.read_text()
    service.write_text(ours.replace(f"Directory={ROOT}", f"Directory={tmp_path}/gone"))
    assert machine.make("timer").code == 0
    assert service.read_text() == ours


@pytest.mark.parametrize("name", ["MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"])
def test_what_the_inventory_reads_of_this_shell_is_refused(machine: Machine, name: str) -> None:
    outcome = machine.make("timer", env={name: "G1VENBYTHESHELL"})
    assert outcome.code != 0
    outcome.assert_says(f"{name} is set in this shell", "encrypted with ansible-vault")
    assert "G1VENBYTHESHELL" not in outcome.text
    assert machine.left == []


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("PROJECT=examples/fraud", "dvc_runner_project"),
        ("ARGS=-e mlflow_workers=1", "mlflow_workers"),
        ("ARGS=--extra-vars=mlflow_workers=1", "mlflow_workers"),
    ],
)
def test_what_is_said_to_one_run_only_is_refused(machine: Machine, word: str, name: str) -> None:
    outcome = machine.make("timer", word)
    assert outcome.code != 0
    outcome.assert_says(f"{name} is given by PROJECT= or after -e", "put it into the inventory")
    assert machine.left == []


def test_the_run_has_what_make_keeps_of_a_shell_but_no_password(machine: Machine) -> None:
    outcome = machine.make(
        "timer",
        env={
            "ANSIBLE_PRIVATE_KEY_FILE": "/keys/a b",
            "PIP_INDEX_URL": "https://mirror.example.org/simple",
            "HTTPS_PROXY": "http://me:S3cretWord@proxy.example.org",
        },
    )
    assert outcome.code == 0, outcome.text
    outcome.assert_says("HTTPS_PROXY: there may be a password")
    service = (machine.units / UNITS[0]).read_text()
    assert '"ANSIBLE_PRIVATE_KEY_FILE=/keys/a b"' in service
    assert '"PIP_INDEX_URL=https://mirror.example.org/simple"' in service
    assert '"UV_DEFAULT_INDEX=https://mirror.example.org/simple"' in service
    assert "S3cretWord" not in service + outcome.text
