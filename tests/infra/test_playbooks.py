"""Every playbook is a verb of its own: it runs alone, and in check mode it changes nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.infra.conftest import ROOT, Stack
from tests.infra.faults_support import docker

# what the timer is on is the machine itself: test_timer.py
PLAYBOOKS = sorted(
    str(path.relative_to(ROOT)) for path in ROOT.glob("playbooks/*.yml") if path.stem != "timer"
)
# what is run alone elsewhere, for it removes what it is about
REMOVES = {"playbooks/destroy.yml", "playbooks/prune.yml"}
# each is a process of its own, and a run with nothing to change takes as long as they are many
TASKS, CALLS = 32, 2


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_playbook_runs_alone_in_check_mode_and_changes_nothing(
    playbook: str, test_platform: Stack, tmp_path: Path
) -> None:
    # images may be built beside this test, and prune waits for nobody
    given = {"base_image_directory": str(tmp_path)} if playbook.endswith("/prune.yml") else {}
    ours = ("ps", "--all", "--filter", f"label=mlops.platform={test_platform.name}", "--quiet")
    before = docker(*ours)
    said = test_platform.play(playbook, "--check", platform_destroy_confirmed=True, **given)
    assert "undefined" not in said
    assert docker(*ours) == before


@pytest.mark.parametrize("playbook", [name for name in PLAYBOOKS if name not in REMOVES])
def test_a_playbook_runs_alone(playbook: str, test_platform: Stack, tmp_path: Path) -> None:
    given: dict[str, object] = {"dvc_runner_env_file": str(test_platform.directory / "env")}
    if playbook.endswith("/save.yml"):  # this checkout stays as it is
        given["dvc_runner_projects"] = {"wine": {"source": str(tmp_path)}}
    test_platform.play(playbook, **given)
    assert (tmp_path / "dvc.lock").exists() == playbook.endswith("/save.yml")


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_playbook_in_check_mode_needs_no_platform(playbook: str, absent_platform: Stack) -> None:
    said = absent_platform.attempt(playbook, "--check", platform_destroy_confirmed=True)
    assert "undefined" not in said
    assert "Traceback" not in said


def test_a_run_with_nothing_to_change_has_few_tasks_and_two_calls(test_platform: Stack) -> None:
    test_platform.play("site.yml")
    said = test_platform.play("site.yml", "-vvv")
    assert "changed=0" in said
    assert len(re.findall(r"^TASK \[", said, re.MULTILINE)) <= TASKS
    assert said.count("Using module file") == CALLS
