"""A pipeline of two stages, run by the runner, from the first run to one that is killed.

No server, no Docker and no machine learning: what is tested is the runner.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.unit.conftest import ROLES

from .conftest import DVC, RUNNER, git, state_of

pytestmark = pytest.mark.processes

DVC_YAML = """\
stages:
  double:
    cmd: sh double.sh
    deps: [double.sh, numbers.txt]
    params: [factor]
    outs: [out/doubled.txt]
  total:
    cmd: sh total.sh
    deps: [total.sh, out/doubled.txt]
    params: [offset]
    metrics:
      - metrics.json: {cache: false}
"""
DOUBLE = r"""echo "doubling for $PIPELINE_GIT_COMMIT $PIPELINE_GIT_DIRTY"
factor=$(sed -n 's/^factor: \([0-9]*\).*/\1/p' params.yaml)
mkdir -p out
while read -r number; do echo $((number * factor)); done < numbers.txt > out/doubled.txt
"""
TOTAL = r"""echo "adding up"
if [ -n "$HOLD" ]; then touch "$HOLD"; sleep 60; fi
offset=$(sed -n 's/^offset: \([0-9]*\).*/\1/p' params.yaml)
total=$offset
while read -r number; do total=$((total + number)); done < out/doubled.txt
[ "$total" -lt 1000 ] || { echo "total $total is too large" >&2; exit 3; }
printf '{"total": %d}\n' "$total" > metrics.json
"""


@dataclass
class World:
    """A project, the workspace it is run in and the remote, side by side in one directory."""

    root: Path

    @property
    def project(self) -> Path:
        return self.root / "project"

    @property
    def work(self) -> Path:
        return self.root / "workspace"

    @property
    def remote(self) -> Path:
        return self.root / "remote"

    def command(self, *words: str) -> list[str]:
        return [sys.executable, str(ROLES / RUNNER), *words]

    def environment(self, **more: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
        return {
            **kept,
            "RUNNER_WORKSPACE": str(self.work),
            "RUNNER_REMOTE_URL": str(self.remote),
            "RUNNER_DVC": DVC,
            **more,
        }

    def call(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            env=self.environment(**more),
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, *words: str) -> str:
        """Run the pipeline; returns what was said."""
        done = self.call("local", str(self.project), *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def total(self) -> int:
        metrics = json.loads((self.work / "project/metrics.json").read_text())
        return int(metrics["total"])

    def objects(self) -> set[str]:
        """What the remote holds."""
        return {name for name in state_of(self.remote) if "/md5/" in name}


@pytest.fixture(scope="module")
def after_first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The world after one run, and what that run said."""
    world = World(tmp_path_factory.mktemp("world"))
    world.project.mkdir()
    files = {"dvc.yaml": DVC_YAML, "double.sh": DOUBLE, "total.sh": TOTAL}
    files |= {"params.yaml": "factor: 2  # of each number\noffset: 0\n", "numbers.txt": "1\n2\n3\n"}
    for name, content in files.items():
        (world.project / name).write_text(content)
    git(world.project, "init", "--quiet")
    git(world.project, "add", "--all")
    git(world.project, "commit", "--quiet", "-m", "the project")
    return world.root, world.run()


@pytest.fixture
def world(after_first_run: tuple[Path, str], tmp_path: Path) -> World:
    """A copy of the world after its first run."""
    root = tmp_path / "world"
    shutil.copytree(after_first_run[0], root, symlinks=True)
    return World(root)


def test_the_first_run_makes_every_output_and_pushes_what_the_cache_keeps(
    after_first_run: tuple[Path, str],
) -> None:
    root, said = after_first_run
    world = World(root)
    assert world.total() == 12
    assert "adding up" in said
    doubled = (world.work / "project/out/doubled.txt").read_bytes()
    assert doubled in {content for _, content in state_of(world.remote).values()}
    assert len(world.objects()) == 1


def test_stages_are_told_the_projects_commit(after_first_run: tuple[Path, str]) -> None:
    root, said = after_first_run
    head = git(World(root).project, "rev-parse", "HEAD")
    assert f"doubling for {head} false" in said


def test_a_run_leaves_the_project_as_it_was(after_first_run: tuple[Path, str]) -> None:
    project = World(after_first_run[0]).project
    assert git(project, "status", "--porcelain", "--ignored") == ""


def test_a_run_ends_as_a_commit_on_top_of_the_snapshot(world: World) -> None:
    place = world.work / "project"
    state = json.loads((world.work / "state.json").read_text())
    assert git(place, "log", "-1", "--format=%P", "runs") == state["snapshot"]
    assert "dvc.lock" in git(place, "show", "--name-only", "--format=", "runs").splitlines()
    assert git(place, "status", "--porcelain") == ""
    assert state["metrics"] == {"metrics.json": {"total": 12}}


def test_a_second_run_has_nothing_to_do(world: World) -> None:
    before = state_of(world.work / "project/out")
    assert world.run().startswith("Nothing to do")
    assert state_of(world.work / "project/out") == before


def test_a_changed_parameter_runs_the_stages_that_use_it_and_no_others(world: World) -> None:
    said = world.run("--param", "params.yaml:offset=5")
    assert world.total() == 17
    assert "doubling" not in said
    assert "factor: 2  # of each number" in (world.work / "project/params.yaml").read_text()
    assert "offset: 0" in (world.project / "params.yaml").read_text()
    assert world.run("--param", "params.yaml:offset=5").startswith("Nothing to do")
    world.run()
    assert world.total() == 12


def test_changed_code_runs_again(world: World) -> None:
    (world.project / "numbers.txt").write_text("10\n")
    said = world.run()
    assert "doubling for" in said
    assert "true" in said
    assert world.total() == 20


def test_a_misspelt_parameter_is_refused_and_the_next_run_is_well(world: World) -> None:
    done = world.call("local", str(world.project), "--param", "params.yaml:ofset=5")
    assert done.returncode == 1
    assert "params.yaml has no 'ofset' there (it has factor, offset)" in done.stderr
    world.run()
    assert world.total() == 12


def test_data_is_read_by_the_parameters_that_the_project_names_for_it(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("4\n")
    given = ("--data", str(tmp_path / "mine.txt"), "--data-param", "source=params.yaml:factor")
    done = world.call("local", str(world.project), *given)
    assert done.returncode == 1
    assert "needs the project's parameter for sha256" in done.stderr
    world.call("local", str(world.project), *given, "--data-param", "sha256=params.yaml:offset")
    written = (world.work / "project/params.yaml").read_text()
    assert "factor: ../inputs/mine.txt" in written
    assert f"offset: {hashlib.sha256(b'4' + bytes([10])).hexdigest()}" in written


def test_a_stage_that_the_project_dropped_leaves_the_lock_with_its_outputs(world: World) -> None:
    lone = DVC_YAML[: DVC_YAML.index("  total:")]
    (world.project / "dvc.yaml").write_text(lone)
    world.run()
    project = world.work / "project"
    assert "total" not in (project / "dvc.lock").read_text()
    assert not (project / "metrics.json").exists()
    assert (project / "out/doubled.txt").read_text() == "2\n4\n6\n"


def test_a_failing_stage_stops_the_run_with_its_own_words_and_keeps_what_was_finished(
    world: World,
) -> None:
    done = world.call("local", str(world.project), "--param", "params.yaml:factor=1000")
    assert done.returncode == 1
    assert "total 6000 is too large" in done.stdout
    assert "The pipeline stopped (dvc repro ended with code" in done.stderr
    result = json.loads((world.work / "result.json").read_text())
    assert result["ok"] is False
    assert "total 6000 is too large" in result["tail"]
    done = world.call("local", str(world.project), "--param", "params.yaml:factor=1000")
    assert "doubling" not in done.stdout
    assert "total 6000 is too large" in done.stdout
    world.run("--param", "params.yaml:factor=3")
    assert world.total() == 18


def test_an_output_that_the_remote_lost_is_pushed_again_without_running_a_stage(
    world: World,
) -> None:
    (lost,) = world.objects()
    (world.remote / lost).unlink()
    said = world.run()
    assert "doubling" not in said
    assert "adding up" not in said
    assert world.objects() == {lost}
    assert world.run().startswith("Nothing to do")


def test_an_output_that_the_workspace_lost_comes_back_without_running_a_stage(
    world: World,
) -> None:
    (world.work / "project/out/doubled.txt").unlink()
    said = world.run()
    assert "doubling" not in said
    assert (world.work / "project/out/doubled.txt").read_text() == "2\n4\n6\n"


def test_a_remote_that_can_not_be_written_ends_with_its_name_and_keeps_the_outputs(
    world: World,
) -> None:
    shutil.rmtree(world.remote)
    world.remote.write_text("a file where a directory is wanted")
    done = world.call("local", str(world.project), "--param", "params.yaml:factor=3")
    assert done.returncode == 1
    assert f"dvc push to {world.remote} ended with code" in done.stderr
    world.remote.unlink()
    said = world.run("--param", "params.yaml:factor=3")
    assert "doubling" not in said
    assert len(world.objects()) == 1


def test_an_export_holds_the_lock_and_every_output(world: World, tmp_path: Path) -> None:
    archive = tmp_path / "results.tar"
    with archive.open("wb") as output:
        subprocess.run(world.command("export"), env=world.environment(), stdout=output, check=True)
    with tarfile.open(archive) as results:
        assert {"dvc.lock", "metrics.json", "out/doubled.txt"} <= set(results.getnames())


def test_without_a_run_there_is_nothing_to_export(tmp_path: Path) -> None:
    done = World(tmp_path).call("export")
    assert done.returncode == 1
    assert "There is no run to export yet" in done.stderr


@pytest.mark.parametrize("whole", [True, False], ids=["with its children", "alone"])
def test_a_run_that_is_killed_in_the_middle_does_not_hinder_the_next(
    whole: bool, world: World
) -> None:
    reached = world.root / "reached"
    killed = subprocess.Popen(
        world.command("local", str(world.project), "--param", "params.yaml:factor=5"),
        env=world.environment(HOLD=str(reached)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not reached.exists():
        assert killed.poll() is None, "the run ended before its second stage"
        time.sleep(0.02)
    if whole:
        os.killpg(killed.pid, signal.SIGKILL)
    else:
        killed.kill()
    killed.wait()
    if not whole:
        # its DVC still works in the workspace: nobody else may
        done = world.call("local", str(world.project), "--param", "params.yaml:factor=5")
        assert done.returncode == 1
        assert f"A run is under way in {world.work}: wait for it." in done.stderr
        os.killpg(killed.pid, signal.SIGKILL)
    said = world.run("--param", "params.yaml:factor=5")
    assert "doubling" not in said
    assert world.total() == 30
    assert world.run("--param", "params.yaml:factor=5").startswith("Nothing to do")
