"""Runs done again, by hand and to compare, and the room that runs take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dvc_runner.again import is_made_of
from dvc_runner.history import runs
from dvc_runner.places import place
from dvc_runner.settings import settings

from .conftest import World, committed_to, git, new_world, state_of

pytestmark = pytest.mark.processes

YAML = """\
stages:
  many:
    wdir: sub
    cmd: python ../many.py
    deps: [../many.py, ../given.csv]
    params: [../params.yaml: [n]]
    outs: [made]
  last:
    cmd: >-
      cat sub/made/* given.csv > last.txt; printf '{"n":1}' > m.json;
      if [ -f /TMP/fail ]; then exit 5; fi; if [ -f /TMP/slow ]; then sleep 60; fi
    deps: [sub/made]
    outs: [last.txt]
    metrics: [{m.json: {cache: false}}]
"""
MANY = """\
import os, yaml
n = yaml.safe_load(open("../params.yaml"))["n"]
os.makedirs("made", exist_ok=True)
for i in range(n): open(f"made/{i}", "w").write(f"{n} {i}\\n")
LUCK
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world after two runs, with data that no stage makes."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    made = new_world(tmp_path)
    (made.project / "sub").mkdir()
    (made.project / "sub/keep").touch()
    committed_to(
        made,
        dvc__yaml=YAML.replace("/TMP", str(tmp_path)),
        many__py=MANY.replace("LUCK", ""),
        params__yaml="n: 2\n",
        given__csv="1\n",
    )
    made.run()
    committed_to(made, params__yaml="n: 3\n")
    made.run()
    return made


def answer(world: World, *words: str, code: int = 0) -> Any:  # noqa: ANN401 - JSON
    """What a subcommand answers last."""
    done = world.call(*words)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def workspace(world: World) -> dict[str, Any]:
    """All that a person sees of the workspace."""
    place = world.work / "project"
    files = {
        name: content
        for name, content in state_of(place).items()
        if not name.startswith((".git/", ".dvc/"))
    }
    state = (world.work / "state.json").read_text()
    return {"files": files, "head": git(place, "rev-parse", "HEAD", "runs"), "state": state}


# --- a run again


def test_an_earlier_run_is_made_again_and_compared_and_the_workspace_stays(world: World) -> None:
    before = workspace(world)
    found = answer(world, "reproduce", "1")
    assert found["same"] is True
    assert set(found["outputs"]) == {"sub/made", "last.txt", "m.json"}
    assert all(old == new and old for old, new in found["outputs"].values())
    assert workspace(world) == before
    assert not list(world.work.glob("again-*"))
    assert world.run().startswith("Nothing to do")


def test_an_output_that_comes_out_otherwise_is_named_and_the_exit_code_tells(world: World) -> None:
    luck = "import uuid; open('made/x', 'w').write(uuid.uuid4().hex)"
    committed_to(world, many__py=MANY.replace("LUCK", luck))
    world.run()
    found = answer(world, "reproduce", "3", code=2)
    assert found["same"] is False
    differs = {path for path, (old, new) in found["outputs"].items() if old != new}
    assert differs == {"sub/made", "last.txt"}
    lines = [line.split() for line in found["table"].splitlines()]
    assert [line[-1] for line in lines if line[0] in differs] == ["DIFFERS", "DIFFERS"]


def test_all_pipelines_of_a_run_are_made_again_and_its_tags_name_it(world: World) -> None:
    git(world.project, "rm", "--quiet", "dvc.yaml")
    (world.project / "sub/dvc.yaml").write_text(
        "stages: {luck: {cmd: date +%N > luck.txt, deps: [../given.csv], outs: [luck.txt]}}"
    )
    committed_to(world)
    world.run()
    found = answer(world, "reproduce", "3", code=2)
    assert [path for path, (old, new) in found["outputs"].items() if old != new] == ["sub/luck.txt"]
    at = settings(world.environment())
    run = runs(at)[-1]
    md5 = found["outputs"]["sub/luck.txt"][0]
    tags = {"git_snapshot": run["snapshot"], "out_md5/sub/luck.txt": md5}
    assert is_made_of(at, run, tags)
    assert not is_made_of(at, run, {**tags, "out_md5/other": "0" * 32})


def test_a_run_is_made_again_of_the_pipeline_that_it_was_of(world: World) -> None:
    (world.project / "sub/dvc.yaml").write_text("stages: {bad: {cmd: exit 3, outs: [bad.txt]}}")
    committed_to(world)
    world.run("--pipeline", "dvc.yaml")
    assert answer(world, "reproduce", str(len(answer(world, "history"))))["same"]
    assert runs(settings(world.environment()))[-1]["pipeline"] == "dvc.yaml"


def test_a_run_again_ends_at_the_projects_limit_of_time(world: World, tmp_path: Path) -> None:
    before = workspace(world)
    (tmp_path / "slow").touch()
    done = world.call("reproduce", "1", "--timeout", "5")
    assert done.returncode == 1
    assert "Run 1 could not be made again within dvc_runner_timeout, 5 seconds" in done.stderr
    assert workspace(world) == before
    assert not list(world.work.glob("again-*"))


def test_a_run_again_waits_for_a_place_of_the_platform(world: World) -> None:
    queue = world.root / "queue"
    with (
        place(settings(world.environment(RUNNER_QUEUE=str(queue), RUNNER_PROJECT="other")), print),
        subprocess.Popen(
            world.command("reproduce", "1"),
            env=world.environment(RUNNER_QUEUE=str(queue)),
            stdout=subprocess.PIPE,
            text=True,
        ) as going,
    ):
        assert going.stdout
        assert going.stdout.readline().startswith("Waiting for a place")
        told = json.loads(world.call("status", RUNNER_QUEUE=str(queue)).stdout)
        assert told["state"] == "waiting"
        going.kill()


def test_a_run_that_is_not_kept_is_refused_with_those_that_are(world: World) -> None:
    done = world.call("reproduce", "9")
    assert done.returncode == 1
    assert done.stderr.startswith("Run 9 is not kept here (there are 1, 2)")


# --- by hand


def shell(world: World, *words: str) -> subprocess.CompletedProcess[str]:
    return world.call("shell", *words)


def test_a_shell_has_the_place_and_variables_of_a_stage(world: World) -> None:
    said = shell(world, "--stage", "many", "--", "pwd; echo $DVC_STAGE $PIPELINE_GIT_DIRTY").stdout
    assert said == f"{world.work}/project/sub\nmany false\n"
    said = shell(world, "--print").stdout
    assert said.startswith(f"cd {world.work}/project\nexport PATH=")
    read = subprocess.run(
        ["sh", "-c", f"{said}\necho $DVC_ROOT; pwd"], capture_output=True, text=True, check=True
    )
    assert read.stdout == f"{world.work}/project\n" * 2
    refused = shell(world, "--stage", "none", "--", "true")
    assert refused.returncode == 1
    assert "none" in refused.stderr


def test_inputs_are_those_of_the_stage_wherever_they_are_asked_for(world: World) -> None:
    place = world.work / "project"
    for cwd in (place, place / "sub", world.root):
        done = subprocess.run(
            world.command("inputs", "many"),
            env=world.environment(),
            cwd=cwd,
            capture_output=True,
            text=True,
            check=True,
        )
        found = json.loads(done.stdout)
        assert found.keys() == {"many.py", "given.csv"}
        assert f"md5: {found['given.csv']}" in (place / "dvc.lock").read_text()


def test_a_failed_stage_is_repeated_by_hand_where_it_failed(world: World, tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    committed_to(world, params__yaml="n: 4\n")
    assert world.call("local", str(world.project)).returncode == 1
    before = workspace(world)
    failed = answer(world, "failed")
    assert (failed["stage"], failed["code"]) == ("last", 5)
    words = failed["again"].removeprefix("dvc_runner shell --failed --stage last -- ")
    done = shell(
        world, "--failed", "--stage", "last", "--", words.strip("'").replace("'\"'\"'", "'")
    )
    assert done.returncode == 5
    # with what the stage before it had made
    assert len(list((world.work / "failed/sub/made").iterdir())) == 4
    assert workspace(world) == before
    assert len(list((world.work / "project/sub/made").iterdir())) == 3


# --- room


def cached(world: World) -> set[str]:
    return {name for name in state_of(world.work / "project/.dvc/cache") if "/md5/" in name}


def test_what_no_kept_run_needs_is_listed_and_goes_on_demand(world: World) -> None:
    committed_to(world, params__yaml="n: 5\n")
    world.run()
    everything, there = cached(world), world.objects()
    # DVC's run cache has what `cache: false` leaves out, and runs here do without that cache
    assert answer(world, "prune")["cache"]["objects"] == 1
    listed = answer(world, "prune", "--keep", "2")
    assert (listed["kept"], listed["dropped"], listed["removed"]) == ([2, 3], [1], False)
    # a list, two files and the last stage's own besides
    assert listed["cache"]["objects"] == 5
    assert listed["text"].startswith("Would remove 5 objects")
    assert cached(world) == everything
    done = answer(world, "prune", "--keep", "2", "--yes")
    assert done["text"].startswith("Removed 5 objects")
    assert len(everything) - len(cached(world)) == 5
    assert world.objects() == there
    assert [run["number"] for run in answer(world, "history")] == [2, 3]
    assert "refs/runs/1" not in git(world.work / "project", "for-each-ref")
    assert world.run().startswith("Nothing to do")
    # all of a kept run comes from the cache that is left
    assert answer(world, "reproduce", "2")["same"]


def test_the_remote_loses_what_dropped_runs_alone_had_and_only_where_asked(world: World) -> None:
    (world.remote / "files/md5/ab").mkdir(parents=True)
    others = world.remote / "files/md5/ab/others"
    others.write_text("of another project")
    there = world.objects()
    listed = answer(world, "prune", "--keep", "1", "--remote")
    assert listed["remote"]["objects"] == 4
    assert world.objects() == there
    answer(world, "prune", "--keep", "1", "--remote", "--yes")
    assert len(there) - len(world.objects()) == 4
    assert others.exists()
    place = world.work / "project"
    git(world.root, "clone", "--quiet", str(place), "clone")
    (world.root / "clone/.dvc/config.local").write_text(
        f"[core]\nremote = platform\n['remote \"platform\"']\nurl = {world.remote}\n"
    )
    subprocess.run(
        [Path(sys.executable).parent / "dvc", "pull", "--quiet"],
        cwd=world.root / "clone",
        check=True,
        env=world.environment(),
    )
    assert (world.root / "clone/last.txt").read_text() == (place / "last.txt").read_text()


def test_what_a_failed_run_had_finished_is_kept(world: World, tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    committed_to(world, params__yaml="n: 4\n")
    assert world.call("local", str(world.project)).returncode == 1
    assert answer(world, "prune", "--keep", "1", "--yes")["cache"]["objects"] == 4
    (tmp_path / "fail").unlink()
    assert "Stage 'many' didn't change" in world.run()


def test_the_run_in_force_stays_though_it_is_not_among_the_last(world: World) -> None:
    world.run("--grid", "n=6,7")
    found = answer(world, "prune", "--keep", "0", "--yes")
    assert found["kept"] == [2]
    assert len(list((world.work / "project/sub/made").iterdir())) == 3
    assert world.run().startswith("Nothing to do")


def test_where_no_run_ended_well_there_is_nothing_to_prune(tmp_path: Path) -> None:
    empty = World(tmp_path)
    (empty.work / "project").mkdir(parents=True)
    git(empty.work / "project", "init", "--quiet")
    found = answer(empty, "prune", "--yes")
    assert found["cache"] == {"objects": 0, "bytes": 0}
    assert found["text"] == "No run has ended well here yet: nothing is removed."


def test_a_list_that_is_nowhere_any_more_stops_it_before_anything_is_removed(world: World) -> None:
    lists = [name for name in cached(world) if name.endswith(".dir")]
    for name in lists:
        (world.work / "project/.dvc/cache" / name).unlink()
        (world.remote / name).unlink()
    before = cached(world)
    done = world.call("prune", "--keep", "2", "--yes")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert cached(world) == before
    assert len(answer(world, "history")) == 2


def test_data_that_no_stage_makes_come_from_the_remote_for_a_run_again(world: World) -> None:
    dvc = Path(sys.executable).parent / "dvc"
    git(world.project, "rm", "--quiet", "given.csv")
    (world.project / "given.csv").write_text("2\n")
    for words in (["init", "--quiet"], ["add", "--quiet", "given.csv"]):
        subprocess.run([dvc, *words], cwd=world.project, check=True, env=world.environment())
    md5 = "files/md5/" + "26ab0db90d72e28ad0ba1e22ee510510"[:2] + "/ab0db90d72e28ad0ba1e22ee510510"
    stored = world.remote / md5
    stored.parent.mkdir(parents=True, exist_ok=True)
    stored.write_text("2\n")
    committed_to(world, params__yaml="n: 1\n")
    world.run()
    (world.work / "project/.dvc/cache" / md5).unlink()
    assert answer(world, "reproduce", "3")["same"]
