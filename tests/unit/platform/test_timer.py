"""What `make timer` leaves for systemd or cron, whatever the names of directories are."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.unit.conftest import load

timer = load("platform/filter_plugins/timer.py")
NAME = "lab-platform"


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Any]:
    """A run whose directories have every character that a unit or a shell gives a meaning."""
    place = tmp_path / '50% of $HOME\'s "lab"'
    place.mkdir()
    program = place / "converge it"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$PWD" "$KEYS" "$1" >"$2"\n')
    program.chmod(0o755)
    told = str(tmp_path / "told")
    return {
        "command": [str(program), "100% $HOME", told],
        "directory": str(place),
        "environment": {"KEYS": "a $b 'c' %d", "NONE": ""},
    }


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not on this machine")
@pytest.mark.parametrize("calendar", ["weekly", "Mon *-*-* 04:00:00"])
def test_systemd_takes_both_units_as_they_are(
    tmp_path: Path, run: dict[str, Any], calendar: str
) -> None:
    for name, content in timer.units(NAME, "lab", calendar, run).items():
        (tmp_path / name).write_text(content)
    words = ["systemd-analyze", "verify", "--man=no", f"{tmp_path}/{NAME}.timer"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not on this machine")
def test_a_time_that_systemd_does_not_know_is_seen(tmp_path: Path, run: dict[str, Any]) -> None:
    for name, content in timer.units(NAME, "lab", "now and then", run).items():
        (tmp_path / name).write_text(content)
    words = ["systemd-analyze", "verify", "--man=no", f"{tmp_path}/{NAME}.timer"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "now and then" in done.stderr


def test_the_service_says_what_it_runs_and_takes_nothing_for_a_variable(
    run: dict[str, Any],
) -> None:
    told = timer.units(NAME, "lab", "weekly", run)[f"{NAME}.service"]
    assert '"100%% $$HOME"' in told
    assert "\"KEYS=a $b 'c' %%d\"" in told
    assert "NONE" not in told


def test_the_line_for_cron_does_the_same(tmp_path: Path, run: dict[str, Any]) -> None:
    line = timer.cron(run["command"], run["directory"], run["environment"])
    assert line.startswith("0 4 * * 1  ")
    # as cron reads it
    command = line.removeprefix("0 4 * * 1  ").replace("\\%", "%")
    subprocess.run(["sh", "-c", command], check=True, env={"PATH": "/usr/bin:/bin"})
    told = (tmp_path / "told").read_text().splitlines()
    assert told == [run["directory"], run["environment"]["KEYS"], "100% $HOME"]
