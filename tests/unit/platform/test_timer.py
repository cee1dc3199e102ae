"""What `make timer` leaves for systemd or cron, whatever the names of directories are."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.unit.conftest import ROLES, load

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


def test_a_machine_that_is_on_for_an_hour_a_day_comes_to_it(run: dict[str, Any]) -> None:
    # systemd rolls the delay anew with each start (its issue 21166)
    told = timer.units(NAME, "lab", "weekly", run)[f"{NAME}.timer"]
    assert "Persistent=true" in told
    (minutes,) = re.findall(r"RandomizedDelaySec=(\d+)min", told)
    assert int(minutes) < 60


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


def test_a_line_end_in_a_value_begins_no_line_of_the_unit(run: dict[str, Any]) -> None:
    run["environment"]["KEYS"] = "a\nExecStartPre=/bin/false"
    told = timer.units(NAME, "lab", "weekly", run)[f"{NAME}.service"]
    assert '"KEYS=a\\nExecStartPre=/bin/false"' in told
    assert "\nExecStartPre" not in told


def test_what_make_keeps_of_a_shell_a_run_has(monkeypatch: pytest.MonkeyPatch) -> None:
    makefile = (ROLES.parent / "Makefile").read_text()
    kept = makefile.partition("unexport $(filter-out ")[2].partition(",")[0]
    # how a run looks is for who looks at it
    names = set(kept.replace("\\\n", " ").split()) - {"ANSIBLE_NOCOLOR", "ANSIBLE_FORCE_COLOR"}
    assert "ANSIBLE_PRIVATE_KEY_FILE" in names
    names = {each.replace("%", "GLOBAL") for each in names} | {"https_proxy", "SSL_CERT_FILE"}
    for name in names:
        monkeypatch.setenv(name, "/a")
    assert names <= timer.environment({}).keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTPS_PROXY", "http://me:T0ld@proxy:3128"),
        ("http_proxy", "me:T0ld@proxy:3128"),
        ("PIP_EXTRA_INDEX_URL", "https://one/simple https://token@two/simple"),
        ("UV_INDEX", "lab=https://me:T0ld@lab/simple"),
        ("UV_INDEX_LAB_PASSWORD", "T0ld"),
        ("GIT_CONFIG_VALUE_0", "Authorization: Bearer T0ld"),
    ],
)
def test_a_password_is_in_no_unit_and_its_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert name not in timer.environment({})
    said = timer.withheld({})
    assert name in said
    assert value not in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NO_PROXY", "localhost,127.0.0.1,.example.org"),
        ("ANSIBLE_VAULT_IDENTITY_LIST", "lab@/keys/lab"),
        ("DOCKER_CONFIG", "/home/me@lab/.docker"),
        ("PIP_INDEX_URL", "https://mirror.example.org/simple"),
    ],
)
def test_what_holds_no_password_is_handed_on(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert timer.environment({})[name] == value
    assert name not in timer.withheld({})


def test_what_a_commented_line_reads_of_a_shell_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: dict[str, Any]
) -> None:
    variables = tmp_path / "group_vars" / "all.yml"
    variables.parent.mkdir()
    monkeypatch.setenv("LAB_WORD", "word")
    variables.write_text("# a: \"{{ lookup('env', 'LAB_WORD') }}\"\n")
    assert timer.lost(run, [str(tmp_path)]) == []
    variables.write_text("a: \"{{ lookup('env', 'LAB_WORD') }}\"\n")
    (said,) = timer.lost(run, [str(tmp_path)])
    assert said.startswith("LAB_WORD is set in this shell")
