"""Runs compared, runs of other parameters, failed runs and runs that nobody wants any more."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from dvc_runner.git import RunnerError
from dvc_runner.history import change, differing
from dvc_runner.overrides import apply, combinations, one_run
from dvc_runner.parameters import override

from .conftest import World, committed_to, git, new_world

pytestmark = pytest.mark.processes

YAML = """\
stages:
  first:
    cmd: python first.py
    deps: [first.py]
    params: [a]
    outs: [first.txt]
  last:
    cmd:
      - echo adding up
      - python last.py
    deps: [last.py, first.txt]
    params: [b, {more.json: [deep.c]}]
    metrics: [{m.json: {cache: false}}]
"""
FIRST = """\
import yaml
open("first.txt", "w").write(str(yaml.safe_load(open("params.yaml"))["a"]))
"""
LAST = """\
import json, os, sys, time, yaml
b = yaml.safe_load(open("params.yaml"))["b"]
c = json.load(open("more.json"))["deep"]["c"]
if b == 13:
    print("b is 13", file=sys.stderr)
    sys.exit(7)
if os.environ.get("HOLD"):
    open(os.environ["HOLD"], "w").close()
    time.sleep(60)
total = int(open("first.txt").read()) + b + c
json.dump({"sum": {"total": total, "share": total / 10}, "lost": float("nan")}, open("m.json", "w"))
"""


@pytest.fixture(scope="module")
def after_a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = new_world(tmp_path_factory.mktemp("world"))
    committed_to(
        world,
        dvc__yaml=YAML,
        first__py=FIRST,
        last__py=LAST,
        params__yaml="a: 1  # of the first\nb: 2\n",
        more__json='{"deep": {"c": 3}}',
    )
    world.run()
    return world.root


@pytest.fixture
def world(after_a_run: Path, tmp_path: Path) -> World:
    """A copy of the world after its first run, with this Python for its stages."""
    root = tmp_path / "world"
    subprocess.run(["cp", "-a", str(after_a_run), str(root)], check=True)
    return World(root)


@pytest.fixture(autouse=True)
def stages_find_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def answer(world: World, *words: str) -> Any:  # noqa: ANN401 - JSON
    """What a subcommand answers."""
    done = world.call(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def total(world: World) -> int:
    found = json.loads((world.work / "project/m.json").read_text())
    return int(found["sum"]["total"])


# --- two runs compared


def test_the_last_two_runs_are_compared_in_parameters_metrics_and_outputs(world: World) -> None:
    committed_to(world, params__yaml="a: 5\nb: 2\n", more__json='{"deep": {"c": 4}}')
    world.run()
    found = answer(world, "diff")
    assert found["params"] == {"params.yaml:a": [1, 5], "more.json:deep.c": [3, 4]}
    assert found["metrics"] == {"m.json:sum.total": [6, 11], "m.json:sum.share": [0.6, 1.1]}
    assert set(found["outputs"]) == {"first.txt", "m.json"}
    assert [run["number"] for run in found["runs"]] == [1, 2]
    (line,) = [line for line in found["table"].splitlines() if "sum.share" in line]
    assert line.split() == ["metrics", "m.json:sum.share", "0.6", "1.1", "+0.5"]
    assert answer(world, "diff", "2", "1")["params"]["params.yaml:a"] == [5, 1]


def test_with_one_run_there_is_nothing_to_compare(world: World) -> None:
    done = world.call("diff")
    assert done.returncode == 1
    assert done.stderr.startswith("There is one run here that ended well")
    done = world.call("diff", "1", "9")
    assert done.stderr.startswith("Run 9 is not kept here (there are 1)")


@pytest.mark.parametrize("numbers", [("1",), ("1", "1", "1"), ("1", "a")])
def test_a_comparison_takes_two_runs(numbers: tuple[str, ...], world: World) -> None:
    done = world.call("diff", *numbers)
    assert done.returncode == 1
    said = f'RUNS="{" ".join(numbers)}" does not name two runs: give two of their numbers, such as'
    assert done.stderr == f'{said} RUNS="3 5".\n'


def test_a_run_with_nothing_to_do_is_no_run(world: World) -> None:
    world.run()
    assert len(answer(world, "history")) == 1


def test_what_is_no_number_and_what_is_the_same_are_no_change() -> None:
    lost = {"lost": float("nan"), "gone": None}
    assert differing(lost, {"lost": float("nan")}) == {"gone": [None, None]}
    assert change(0.1, 0.3) == "+0.2"
    assert change(True, 2) == change("x", 1) == ""


# --- other parameters


def test_a_run_with_other_parameters_does_not_stay(world: World) -> None:
    before = git(world.project, "status", "--porcelain", "--ignored")
    said = world.run("--set", "a=7", "--set", "more.json:deep.c=10")
    assert "Running stage 'first'" in said
    assert total(world) == 19
    assert answer(world, "results")["params"] == {"params.yaml:a": 7, "more.json:deep.c": 10}
    params = (world.work / "project/params.yaml").read_text()
    assert params == "a: 7  # of the first\nb: 2\n"
    place = world.work / "project"
    assert "more.json" in git(place, "show", "--name-only", "--format=", "runs").splitlines()
    assert git(world.project, "status", "--porcelain", "--ignored") == before
    again = world.run("--set", "a=7", "--set", "more.json:deep.c=10")
    assert again.startswith("Nothing to do")
    world.run()
    assert total(world) == 6
    assert [run["set"] for run in answer(world, "history")] == [
        [],
        ["a=7", "more.json:deep.c=10"],
        [],
    ]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("nope=1", "SET nope=1: Could not override 'nope'"),
        ("a", "a is no parameters as `dvc exp run --set-param` takes them"),
        ("other.yaml:a=1", "SET other.yaml:a=1: the project has no other.yaml"),
        ("../outside.yaml:a=1", "the project has no ../outside.yaml"),
        ("first.py.txt:a=1", "has no first.py.txt"),
        ("a=1,2", 'SET="a=1,2" is 2 runs: use GRID'),
    ],
)
def test_a_parameter_that_can_not_be_set_is_named(item: str, said: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "outside.yaml").write_text("a: 1\n")
    (project / "params.yaml").write_text("a: 1\n")
    with pytest.raises(RunnerError) as refusal:
        apply(project, one_run([item]))
    assert said in str(refusal.value)
    assert (project / "params.yaml").read_text() == "a: 1\n"
    assert (tmp_path / "outside.yaml").read_text() == "a: 1\n"


def test_a_parameter_is_set_that_a_stage_reads_as_a_number(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    kept = "name: 2e5\n"
    for setting in (partial(apply, items=["lr=1e-5"]), partial(override, params={"lr": 1e-5})):
        path.write_text(f"{kept}lr: 0.1  # of a step\n")
        setting(tmp_path)
        assert path.read_text().startswith(kept)
        # what most projects read it with
        assert yaml.safe_load(path.read_text())["lr"] == 0.00001


def test_a_grid_is_every_combination() -> None:
    assert combinations(["a=1,2", "more.json:c=range(1,3)", "b=5"]) == [
        ["a=1", "b=5", "more.json:c=1"],
        ["a=1", "b=5", "more.json:c=2"],
        ["a=2", "b=5", "more.json:c=1"],
        ["a=2", "b=5", "more.json:c=2"],
    ]


def test_a_grid_runs_each_combination_and_leaves_the_projects_own(world: World) -> None:
    state = json.loads((world.work / "state.json").read_text())
    commit = git(world.work / "project", "rev-parse", "runs")
    said = world.run("--grid", "a=5,6", "--grid", "b=13,4")
    result = json.loads((world.work / "result.json").read_text())
    rows = result["grid"]
    assert [row["set"] for row in rows] == [
        ["a=5", "b=13"],
        ["a=5", "b=4"],
        ["a=6", "b=13"],
        ["a=6", "b=4"],
    ]
    assert [row["metrics"].get("sum.total") for row in rows] == [None, 12, None, 13]
    assert "b is 13" in rows[0]["error"]
    assert result["table"] in said
    assert len(result["table"].splitlines()) == 5
    kept = answer(world, "history")
    assert [run["set"] for run in kept] == [[], ["a=5", "b=4"], ["a=6", "b=4"]]
    place = world.work / "project"
    assert git(place, "show", f"{kept[2]['commit']}:params.yaml").startswith("a: 6")
    assert total(world) == 6
    assert git(place, "rev-parse", "runs", "HEAD").split() == [commit, commit]
    assert git(place, "status", "--porcelain") == ""
    assert json.loads((world.work / "state.json").read_text()).items() >= state.items()
    assert world.run().startswith("Nothing to do")
    assert answer(world, "status")["last_run"]["number"] == 1


def test_a_grid_of_a_project_that_never_ran_begins_with_its_own_parameters(
    world: World, tmp_path: Path
) -> None:
    fresh = World(tmp_path / "fresh")
    fresh.root.mkdir()
    world.project.rename(fresh.project)
    fresh.run("--grid", "b=4,5")
    assert [run["set"] for run in answer(fresh, "history")] == [[], ["b=4"], ["b=5"]]
    assert total(fresh) == 6


# --- a run that failed


def test_a_failed_run_keeps_its_stage_code_command_and_log(world: World) -> None:
    committed_to(world, params__yaml="a: 1\nb: 13\n")
    assert world.call("local", str(world.project)).returncode == 1
    found = answer(world, "failed")
    wanted = {"stage": "last", "code": 7, "command": "python last.py"}
    assert wanted.items() <= found.items()
    assert found["again"] == "dvc_runner shell --failed --stage last -- 'python last.py'"
    assert "b is 13" in Path(found["log"]).read_text()
    state = answer(world, "status")
    assert (state["state"], state["failed"]["stage"]) == ("failed", "last")
    assert state["failed"]["cancelled"] is False
    assert state["text"].startswith("failed at stage last ")
    assert "in force is run 1" in state["text"]
    committed_to(world, params__yaml="a: 1\nb: 14\n")
    world.run()
    assert answer(world, "failed") == {}
    assert answer(world, "status")["state"] == "done"


def test_the_state_of_a_project_that_never_ran_is_that(tmp_path: Path) -> None:
    world = new_world(tmp_path)
    found = answer(world, "status")
    assert (found["state"], found["text"], found["last_run"]) == ("never ran", "no run yet", {})


def test_a_run_that_waits_for_the_platform_says_its_place(world: World, tmp_path: Path) -> None:
    queue = tmp_path / "queue"
    queue.mkdir()
    with ExitStack() as held:
        for name in ("1-other", "2-third", "3-project", "4-late"):
            fcntl.flock(held.enter_context((queue / name).open("w")), fcntl.LOCK_EX)
        fcntl.flock(held.enter_context((world.work / "lock").open("w")), fcntl.LOCK_EX)
        done = world.call("status", RUNNER_QUEUE=str(queue))
        found = json.loads(done.stdout)
        assert (found["state"], found["place"]) == ("waiting", 2)
        assert found["text"].startswith("waiting, place 2 in the queue")
        done = world.call("status", RUNNER_QUEUE=str(queue), RUNNER_AT_ONCE="3")
    assert json.loads(done.stdout)["state"] == "running"


# --- turns


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)


def start(world: World, name: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        world.command("run", name),
        env=world.environment(**more),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_a_request_that_runs_or_waits_can_be_cancelled_and_finished_stages_stay(
    world: World, tmp_path: Path
) -> None:
    hold = tmp_path / "held"
    world.ask("aa", set=["a=3"])
    world.ask("bb")
    world.ask("cc")
    with start(world, "aa", HOLD=str(hold)) as first:
        until(hold.exists)
        with start(world, "bb") as second:
            until(lambda: "Waiting for the run" in world.said("bb"))
            found = answer(world, "status")
            assert (found["state"], found["stage"], found["waiting"]) == ("running", "last", ["bb"])
            assert answer(world, "cancel", "bb") == {"cancelled": "bb", "was": "waiting"}
            assert second.wait(30) == 1
        assert world.result("bb")["error"].startswith("The run was cancelled.")
        assert first.poll() is None
        assert answer(world, "cancel", "aa") == {"cancelled": "aa", "was": "running"}
        assert first.wait(60) == 1
    found = answer(world, "status")
    assert (found["state"], found["failed"]["cancelled"]) == ("cancelled", True)
    assert found["text"].startswith("cancelled ")
    result = world.result("aa")
    assert result["error"].startswith("The run was cancelled. Finished stages are kept.")
    assert total(world) == 6
    # its process comes only now
    assert answer(world, "cancel", "cc")["was"] == "waiting"
    with start(world, "cc") as third:
        assert third.wait(30) == 1
    assert world.result("cc")["error"].startswith("The run was cancelled.")
    world.ask("dd", set=["a=3"])
    with start(world, "dd") as last:
        assert last.wait(60) == 0
    assert answer(world, "status")["state"] == "done"
    assert "Stage 'first' didn't change, skipping" in world.said("dd")
    assert total(world) == 8
    done = world.call("cancel", "dd")
    assert done.stderr == "Request dd has ended already: there is nothing to cancel.\n"
    assert "is not in" in world.call("cancel", "ee").stderr
