"""What goes wrong in a project or under a run: a sentence is said, and nothing is lost."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.conftest import ROLES

from .conftest import RUNNER, World, committed_to, dvc, git, new_world

pytestmark = pytest.mark.processes

STAGES = {
    "first": {
        "cmd": "echo first >>$NOTES; cat data.csv params.yaml >first.txt",
        "deps": ["data.csv"],
        "params": ["lr"],
        "outs": ["first.txt"],
    },
    "second": {
        "cmd": "echo second >>$NOTES; cp first.txt second.txt; echo {} >metrics.json",
        "deps": ["first.txt"],
        "outs": ["second.txt"],
        "metrics": [{"metrics.json": {"cache": False}}],
    },
}
# what a run does, one after another, as `dvc_runner.run` calls it: it is fetched, has its
# environment and data, its stages run, it is pushed, recorded and noted
PHASES = (
    *("fetch", "check_out", "install_local", "bring_data", "stage_environment"),
    *("push", "record", "require_stored", "add"),
)
# runs the runner with one of its functions replaced
WITH = """
import errno, os, sys
sys.path.insert(0, {image!r})
import dvc_runner.run as run
from dvc_runner.command_line import main
whole = run.{phase}
def killed(*given, **named):
    whole(*given, **named)
    os.kill(os.getpid(), 9)
def full(*given, **named):
    raise OSError(errno.ENOSPC, "No space left on device")
run.{phase} = {fault}
sys.exit(main({words!r}))
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A project with data in its cache, that was run once."""
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    made = new_world(tmp_path)
    dvc(made.project, "init", "--quiet")
    (made.project / "data.csv").write_text("1\n")
    dvc(made.project, "add", "data.csv")
    committed_to(made, dvc__yaml=json.dumps({"stages": STAGES}), params__yaml="lr: 0\n")
    made.run()
    return made


def changed(world: World, number: int) -> None:
    """Commit other data and another parameter."""
    (world.project / "data.csv").write_text(f"{number}\n")
    dvc(world.project, "add", "data.csv")
    committed_to(world, params__yaml=f"lr: {number}\n")
    (world.root / "notes").write_text("")


def faulty(world: World, phase: str, fault: str) -> subprocess.CompletedProcess[str]:
    """Run the project with a fault in one phase."""
    image = str((ROLES / RUNNER).parent)
    text = WITH.format(image=image, phase=phase, fault=fault, words=["local", str(world.project)])
    return subprocess.run(
        [sys.executable, "-c", text],
        env=world.environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def require_whole(world: World, number: int) -> None:
    """See that the run of these data and parameters is there, and in the remote."""
    place = world.work / "project"
    assert (place / "second.txt").read_text() == f"{number}\nlr: {number}\n"
    assert world.run().startswith("Nothing to do")
    clone = world.root / f"clone-{number}"
    git(world.root, "clone", "--quiet", "--branch", "runs", str(place), str(clone))
    dvc(clone, "remote", "add", "--default", "there", str(world.remote))
    dvc(clone, "pull", "--quiet")
    assert (clone / "second.txt").read_text() == f"{number}\nlr: {number}\n"


def test_a_run_that_is_killed_in_any_phase_is_made_good_by_the_next(world: World) -> None:
    for number, phase in enumerate(PHASES, 1):
        changed(world, number)
        done = faulty(world, phase, "killed")
        assert done.returncode == -signal.SIGKILL, f"{phase}: {done.stdout}{done.stderr}"
        world.run()
        ran = (world.root / "notes").read_text().split()
        assert ran == ["first", "second"], f"killed after {phase}"
    require_whole(world, number)


def test_a_disk_that_is_full_in_any_phase_is_said_and_the_next_run_is_well(world: World) -> None:
    for number, phase in enumerate(PHASES, 1):
        changed(world, number)
        done = faulty(world, phase, "full")
        assert done.returncode == 1, f"{phase}: {done.stdout}{done.stderr}"
        assert f"The disk under {world.work} is full" in done.stderr.splitlines()[-1], phase
        assert "Traceback" not in done.stderr
        world.run()
        ran = (world.root / "notes").read_text().split()
        assert ran == ["first", "second"], f"a full disk in {phase}"
    require_whole(world, number)


def failed(world: World, **files: str) -> str:
    """What is said of a run with other files; the last good run stays in force."""
    before = (world.work / "project/second.txt").read_text()
    committed_to(world, **files)
    done = world.call("local", str(world.project))
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    state: dict[str, Any] = json.loads((world.work / "state.json").read_text())
    assert state["done"]
    assert (world.work / "project/second.txt").read_text() == before
    return done.stderr.splitlines()[-1]


def test_what_a_project_has_that_can_not_be_run_is_said_in_a_sentence(world: World) -> None:
    text = json.dumps({"stages": STAGES}, indent=1)
    marked = f"<<<<<<< HEAD\n{text}\n=======\n{text}\n>>>>>>> other\n"
    said = failed(world, dvc__yaml=marked)
    assert "'dvc.yaml', YAML file structure is corrupted, line 1: a conflict that git left" in said
    said = failed(world, dvc__yaml="stages:\n  first: {cmd: [\n")
    assert "line 3: " in said
    absent = {**STAGES, "third": {"cmd": "no-such-tool --now", "deps": ["first.txt"]}}
    said = failed(world, dvc__yaml=json.dumps({"stages": absent}))
    assert re.search("no-such-tool: (command )?not found", said)


def test_an_output_that_is_a_link_out_of_the_project_is_kept_by_its_content_and_nothing_there(
    world: World,
) -> None:
    outside = world.root / "outside"
    outside.mkdir()
    (outside / "theirs.txt").write_text("theirs\n")
    link = {
        "cmd": f"ln -sfn {outside}/theirs.txt out.txt",
        "outs": ["out.txt"],
        "deps": ["first.txt"],
    }
    committed_to(world, dvc__yaml=json.dumps({"stages": {**STAGES, "link": link}}))
    world.run()
    assert (world.work / "project/out.txt").read_text() == "theirs\n"
    within = {
        "cmd": f"ln -sfn {outside} made; echo 1 >made/out.txt",
        "outs": ["made/out.txt"],
        "deps": ["first.txt"],
    }
    committed_to(world, dvc__yaml=json.dumps({"stages": {**STAGES, "link": within}}))
    done = world.call("local", str(world.project))
    assert "Traceback" not in done.stderr
    assert (outside / "theirs.txt").read_text() == "theirs\n"
    committed_to(world, dvc__yaml=json.dumps({"stages": STAGES}))
    world.run()
    assert (outside / "theirs.txt").read_text() == "theirs\n"
