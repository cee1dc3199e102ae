"""One stage of a run at a time, as a scheduler with a task for each stage asks for them."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.conftest import load

from dvc_runner.settings import Settings, settings
from dvc_runner.stages import as_left
from dvc_runner.workspace import snapshot_of
from platform_verify.facts import FactError

from .conftest import World, committed_to, git, new_world

pytestmark = pytest.mark.processes

# each notes that it ran; what `prepare` counts is git's
PIPELINE = """\
stages:
  prepare:
    cmd: echo prepare >>$NOTES; cp numbers.csv clean.csv; wc -l <clean.csv >lines.json
    deps: [numbers.csv]
    outs: [clean.csv]
    metrics: [{lines.json: {cache: false}}]
  train:
    cmd:
    - test ! -e $NOTES.broken
    - echo train >>$NOTES; cat clean.csv lines.json params.yaml >model
    deps: [clean.csv, lines.json]
    params: [lr]
    outs: [model]
  score:
    foreach: [a, b]
    do:
      cmd: echo score ${item} >>$NOTES; (echo ${item}; cat model) >score-${item}
      deps: [model]
      outs: ["score-${item}"]
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A project that was run once, and has other numbers since."""
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    made = new_world(tmp_path)
    numbers = {"numbers__csv": "1\n", "lines__json": "0\n"}
    committed_to(made, dvc__yaml=PIPELINE, params__yaml="lr: 1\n", **numbers)
    made.run()
    committed_to(made, numbers__csv="1\n2\n")
    done = made.call("local", str(made.project), "--set", "nothing=1")
    assert "nothing" in done.stderr, "it brings the snapshot, and is refused"
    (tmp_path / "notes").write_text("")
    return made


def ran(world: World) -> list[str]:
    """What ran since this was asked last."""
    found = (world.root / "notes").read_text().splitlines()
    (world.root / "notes").write_text("")
    return found


def ask(world: World, name: str, **request: object) -> dict[str, Any]:
    """Have a request of what was last delivered served; how it ended."""
    subprocess.run(
        world.command("request", name),
        env=world.environment(),
        input=json.dumps({"force": False, **request}),
        text=True,
        check=True,
    )
    world.call("run", name)
    return world.result(name)


def state(world: World) -> dict[str, Any]:
    """What is known of the run in force."""
    known: dict[str, Any] = json.loads((world.work / "state.json").read_text())
    return known


def test_the_stages_of_a_run_come_one_by_one_and_a_request_without_one_ends_it(
    world: World,
) -> None:
    before = world.objects()
    first = ask(world, "a1", stage="prepare")
    assert (first["ok"], first["changed"], [*first["hashes"]]) == (
        True,
        True,
        ["clean.csv", "lines.json"],
    )
    assert ran(world) == ["prepare"]
    assert ask(world, "a2", stage="prepare")["changed"] is False
    assert ask(world, "a3", stage="train")["ok"]
    assert ask(world, "a4", stage="score@b")["ok"]
    assert ask(world, "a5", stage="score")["ok"]
    assert ran(world) == ["train", "score b", "score a"]
    assert world.objects() == before, "it was stored before the run has ended"
    last = ask(world, "a6")
    assert last["ok"]
    assert last["metrics"] == {"lines.json": 2}
    assert ran(world) == []
    assert len(world.objects() - before) == 4
    runs = json.loads(world.call("history").stdout)
    assert [run["asked"] for run in runs] == ["", "a6"]
    assert git(world.work / "project", "status", "--porcelain") == ""


def test_a_stage_that_is_not_there_is_refused_with_those_that_are(world: World) -> None:
    answer = ask(world, "a1", stage="trian")
    assert (
        "has no stage trian (it has prepare, train, score@a, score@b): name one" in answer["error"]
    )
    assert "The last good run stays in force" in answer["error"]
    assert state(world)["done"]
    assert (world.work / "project/lines.json").read_text().strip() == "1"


def test_a_stage_is_refused_where_one_before_it_is_to_run_first(world: World) -> None:
    answer = ask(world, "a1", stage="train")
    assert "Stage train depends on prepare, which is not up to date" in answer["error"]
    assert ran(world) == []
    # another run comes between two stages of one
    assert ask(world, "a2", stage="prepare", set=["lr=2"])["ok"]
    assert ask(world, "a3", stage="train", set=["lr=2"])["ok"]
    assert ask(world, "a4")["ok"]
    answer = ask(world, "a5", stage="score", set=["lr=2"])
    assert "Stage score@a depends on train, which is not up to date" in answer["error"]
    assert state(world)["set"] == []


def test_a_stage_that_failed_is_asked_for_again_alone(world: World) -> None:
    assert ask(world, "a1", stage="prepare")["ok"]
    (world.root / "notes.broken").touch()
    answer = ask(world, "a2", stage="train")
    assert (answer["ok"], answer["stage"]) == (False, "train")
    (world.root / "notes.broken").unlink()
    assert ask(world, "a3", stage="train")["ok"]
    assert ran(world) == ["prepare", "train"]
    assert (world.work / "project/model").read_text() == "1\n2\n2\nlr: 1\n"


def test_a_stage_is_run_again_where_it_is_asked_to(world: World) -> None:
    for name, stage in (("a1", "prepare"), ("a2", "train")):
        assert ask(world, name, stage=stage)["ok"]
    assert ask(world, "a3", stage="train", force=True)["changed"]
    assert ran(world) == ["prepare", "train", "train"]
    assert ask(world, "a4")["ok"]
    assert ran(world) == ["score a", "score b"]


def test_a_run_that_no_request_ends_is_taken_up_by_the_next_one(world: World) -> None:
    assert ask(world, "a1", stage="prepare")["ok"]
    assert ran(world) == ["prepare"]
    world.run()
    assert ran(world) == ["train", "score a", "score b"]
    assert state(world)["done"]


def test_between_two_stages_nothing_is_saved_and_the_verdict_says_what_ends_the_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence, lineage = (
        load(f"dvc_runner/verify/{name}.py") for name in ("evidence", "check_lineage")
    )
    monkeypatch.setattr(evidence, "WORKSPACE", world.work)
    monkeypatch.setattr(evidence, "PROJECT", world.work / "project")
    monkeypatch.setattr(evidence, "RUNNER", tuple(world.command()))
    monkeypatch.setattr(evidence, "made", evidence.made.__wrapped__)
    for key, value in world.environment().items():
        monkeypatch.setenv(key, value)
    chain = lineage.chain.__wrapped__
    service: Any = lambda name: name  # noqa: E731 - as pytest gives it

    def judged() -> Any:  # noqa: ANN401 - JSON
        facts = SimpleNamespace(of=lambda *_, **__: evidence.workspace())
        return chain("one", facts, service, lambda _: None)

    before = world.results()
    assert judged()["done"]
    with pytest.raises(pytest.skip.Exception, match=r"^no config\.yaml of the project names mlfl"):
        lineage.tracked.__wrapped__(judged(), service)
    assert ask(world, "a1", stage="prepare")["ok"]
    refused = world.call("results")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        "The last run of project project is unfinished, so nothing was saved: `make pipeline`, or "
        "a request to the API without `stage`, ends it.\n"
    )
    with pytest.raises(FactError, match="the last run is unfinished") as said:
        judged()
    assert "`make pipeline`, or a request to the API without `stage`" in said.value.hint
    with (world.work / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FactError, match="a run is under way"):
            judged()
        assert "is under way: wait for its end" in world.call("results").stderr
    assert ask(world, "a2")["ok"]
    assert judged()["done"]
    assert world.results()["clean.csv"]["md5"] != before["clean.csv"]["md5"]


def test_other_parameters_run_no_stage_again_whose_output_git_has(world: World) -> None:
    world.run()
    ran(world)
    world.run("--set", "lr=2")
    assert ran(world) == ["train", "score a", "score b"]
    assert (world.work / "project/lines.json").read_text().strip() == "2"


@pytest.fixture
def at(world: World) -> Settings:
    """Its settings, where the last run is of the snapshot that is asked for again."""
    world.run()
    return settings(world.environment())


def outputs_left_to_git(at: Settings) -> dict[str, str]:
    return {path.name: path.read_text().strip() for path in at.project.glob("*.json")}


def test_what_only_the_workspace_has_is_put_back_where_the_snapshot_cannot_be(
    at: Settings,
) -> None:
    def check_out() -> None:
        with as_left(at, snapshot_of(at, "HEAD")):
            assert outputs_left_to_git(at) == {}
            (at.project / "lines.json").write_text("of the snapshot")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        check_out()
    assert outputs_left_to_git(at) == {"lines.json": "2"}
    assert [*at.workspace.glob("held-*")] == []


@pytest.mark.parametrize("came", ["nothing", "a file", "a directory"])
def test_what_a_killed_run_held_is_put_back_by_the_next_one(
    came: str, at: Settings, world: World
) -> None:
    ran(world)
    killed = os.fork()
    if not killed:
        with as_left(at, snapshot_of(at, "HEAD")):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(killed, 0)
    assert outputs_left_to_git(at) == {}
    if came == "a file":
        (at.project / "lines.json").write_text("of the snapshot")
    elif came == "a directory":
        (at.project / "lines.json").mkdir()
    world.run("--set", "lr=2")
    assert ran(world) == ["train", "score a", "score b"]
    assert outputs_left_to_git(at) == {"lines.json": "2"}
    assert [*at.workspace.glob("held-*")] == []


def test_what_was_held_before_anything_was_noted_is_no_obstacle(at: Settings, world: World) -> None:
    (at.workspace / "held-older").mkdir()
    world.run()
    assert outputs_left_to_git(at) == {"lines.json": "2"}
