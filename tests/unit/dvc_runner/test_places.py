"""How many projects run at once, and what becomes of their queue where somebody stops."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dvc_runner import door, places
from dvc_runner.git import RunnerError
from dvc_runner.lock import is_running, only_run
from dvc_runner.need import check
from dvc_runner.places import HELD, hold, is_queue_held, place, release
from dvc_runner.settings import Settings, settings
from dvc_runner.state import read_json, write_json
from dvc_runner.status import place_in_queue, stage_in, standing, status
from dvc_runner.turns import ask, left_over, turn

from .conftest import World, committed_to, new_world

HOLDER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from dvc_runner.places import place
from dvc_runner.settings import settings
at = settings({"RUNNER_QUEUE": sys.argv[2], "RUNNER_PROJECT": "other"})
with place(at, print):
    print("in", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def at(tmp_path: Path) -> Settings:
    """A runner of a platform that lets two runs go on at once."""
    return settings({"RUNNER_QUEUE": str(tmp_path / "queue"), "RUNNER_AT_ONCE": "2"})


def until(done: object, patience: float = 30.0) -> None:
    """Wait until a call says yes."""
    assert callable(done)
    deadline = time.monotonic() + patience
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def tickets(at: Settings) -> list[Path]:
    """Those who wait or run."""
    return list((at.queue or Path()).glob("[0-9]*"))


def test_as_many_run_at_once_as_the_platform_lets_and_the_others_follow_in_order(
    at: Settings,
) -> None:
    order: list[str] = []
    said: dict[str, list[str]] = {}
    release = {name: threading.Event() for name in "abcd"}

    def run(name: str) -> None:
        with place(replace(at, name=name), said.setdefault(name, []).append):
            order.append(name)
            release[name].wait(30)

    threads = [threading.Thread(target=run, args=(name,)) for name in "abcd"]
    for count, thread in enumerate(threads):
        thread.start()
        until(lambda count=count: len(tickets(at)) == count + 1)
    until(lambda: said["c"] and said["d"])
    assert sorted(order) == ["a", "b"]
    assert "2 at once on this platform" in said["c"][0]
    assert said["c"][0].endswith("0 wait before this one.")
    assert said["d"][0].endswith("1 wait before this one.")
    release["b"].set()
    until(lambda: len(order) == 3)
    assert order[2] == "c"
    for each in release.values():
        each.set()
    for thread in threads:
        thread.join()
    assert order[3] == "d"
    assert tickets(at) == []


@pytest.fixture
def holder(at: Settings) -> Iterator[subprocess.Popen[str]]:
    """Another project's run that holds the one place."""
    package = str(Path(settings.__code__.co_filename).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, package, str(at.queue)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "in\n"
        yield process
        process.kill()


def test_who_is_killed_has_left_the_queue(at: Settings, holder: subprocess.Popen[str]) -> None:
    said: list[str] = []
    done = threading.Event()

    def run() -> None:
        with place(replace(at, at_once=1), said.append):
            done.set()

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: said)
    assert not done.is_set()
    holder.kill()
    thread.join(30)
    assert done.is_set()


def test_a_held_queue_lets_who_is_in_work_go_on_and_nobody_begin_until_it_is_released(
    at: Settings,
) -> None:
    order: list[str] = []
    said: list[str] = []

    def run() -> None:
        with place(replace(at, name="later"), said.append):
            order.append("later")

    with place(replace(at, name="wine", asked="ab"), said.append):
        (told,) = hold(at, 60, "one")["in_work"]
        assert (told["project"], told["asked"]) == ("wine", "ab")
        thread = threading.Thread(target=run)
        thread.start()
        until(lambda: said)
        # there is a place, and yet
        assert said == [HELD]
        assert hold(at, 60, "one")["in_work"] == [told]
        assert place_in_queue(replace(at, name="later")) == 0
        assert place_in_queue(replace(at, name="wine")) is None
    assert hold(at, 60, "one")["in_work"] == []
    assert order == []
    assert release(at, "one") == {"held": True}
    thread.join(30)
    assert order == ["later"]
    assert release(at, "one") == {"held": False}


def test_a_request_waits_in_a_held_queue_before_it_takes_the_workspace(
    at: Settings,
) -> None:
    at = replace(at, workspace=(at.queue or Path()).parent, asked="ab")
    said: list[str] = []
    ask(at, {"set": ["n=2"]})
    hold(at, 60, "one")
    done = threading.Event()

    def run() -> None:
        with turn(at, said.append):
            done.set()

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: said)
    assert said == [HELD]
    assert not is_running(at)
    assert standing(at) == {"state": "waiting", "place": 0}
    assert status(replace(at, asked=""))["text"].startswith("queue held by a rotation, 1 waiting; ")
    release(at, "one")
    thread.join(30)
    assert done.is_set()
    assert read_json(at.request) == {"set": ["n=2"]}


def test_whoever_begins_as_the_queue_is_held_is_seen_or_waits(
    at: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    told: list[object] = []
    before = places.why_waiting

    def held_meanwhile(*given: object) -> str:
        why = str(before(*given))  # type: ignore[arg-type]
        if not told:
            told.append(hold(at, 60, "one")["in_work"])
        return why

    monkeypatch.setattr(places, "why_waiting", held_meanwhile)
    entered = threading.Event()

    def run() -> None:
        with place(at, said.append):
            entered.set()

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: said)
    # it asked for its place before, and was not in work when the queue was held
    assert (told, entered.is_set()) == ([[]], False)
    assert hold(at, 60, "one")["in_work"] == []
    release(at, "one")
    thread.join(30)
    assert entered.is_set()


def test_nobody_who_was_killed_holds_a_queue_for_ever(at: Settings) -> None:
    hold(at, 60, "one")
    assert is_queue_held(at)
    hold(at, 0, "one")
    with place(at, print):
        assert not is_queue_held(at)


def test_a_queue_is_held_by_one_and_let_go_by_no_other(at: Settings) -> None:
    until = hold(at, 60, "one")["until"]
    assert hold(at, 1800, "two") == {"by": "one", "until": until, "in_work": []}
    assert release(at, "two") == {"held": False}
    assert is_queue_held(at)
    assert hold(at, 1800, "one")["until"] > until + 1000
    assert release(at, "one") == {"held": True}
    assert hold(at, 60, "two")["by"] == "two"


def test_who_asks_whether_a_run_is_needed_is_told_who_holds_the_queue_and_changes_nothing(
    tmp_path: Path,
) -> None:
    world = new_world(tmp_path)
    committed_to(world, dvc__yaml="stages: {one: {cmd: echo 1 > one.txt, outs: [one.txt]}}\n")
    at = settings({"RUNNER_WORKSPACE": str(tmp_path), "RUNNER_QUEUE": str(tmp_path / "queue")})
    assert check(at, {})["held"] == {}
    hold(at, 60, "one")
    assert check(at, {"release": True})["held"]["by"] == "one"
    with only_run(at):
        assert check(at, {})["held"]["by"] == "one"
    assert is_queue_held(at)


def test_a_runner_without_a_queue_waits_for_nobody(tmp_path: Path) -> None:
    with place(settings({"RUNNER_WORKSPACE": str(tmp_path)}), print):
        assert list(tmp_path.iterdir()) == []


def test_what_nobody_serves_is_left_over_and_what_has_a_result_is_not(at: Settings) -> None:
    at = replace(at, workspace=(at.queue or Path()).parent)
    for number, name in enumerate(("b", "a", "c")):
        one = replace(at, asked=name)
        one.own.mkdir(parents=True)
        write_json(one.request, {"params": {}, "force": True})
        os.utime(one.request, (number, number))
    write_json(replace(at, asked="a").result, {"ok": True})
    assert left_over(at) == ["b", "c"]


def test_what_is_left_over_waits_for_a_store_and_a_server_that_start_with_the_host(
    at: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = replace(at, workspace=(at.queue or Path()).parent, asked="a")
    at.own.mkdir(parents=True)
    write_json(at.request, {"params": {}, "force": True})
    said: list[str] = []

    def answers(name: str) -> None:
        said.append(name)
        if said.count(name) == 1:
            raise RunnerError(f"{name} does not answer")

    monkeypatch.setattr(door, "SECONDS", 0.01)
    monkeypatch.setattr(door, "require_remote", lambda _: answers("store"))
    monkeypatch.setattr(door, "run_is_tracked", lambda *_: answers("server"))
    monkeypatch.setattr(door, "start", lambda one: said.append(one.asked))
    door.serve_left_over(replace(at, asked=""))
    assert said == ["store", "store", "server", "store", "server", "a"]


def test_a_run_that_does_not_start_is_said_and_nothing_of_its_request_is_lost(
    at: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = (at.queue or Path()).parent / "inbox"
    inbox.mkdir()
    at = replace(at, workspace=inbox.parent, inbox=inbox)
    door.submit(inbox, "a1", {})
    monkeypatch.setattr(door, "PATIENCE", 0.2)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(subprocess.SubprocessError, match="a1 did not start"):
        door.take(at, inbox / "a1.json", door.start)
    assert door.lying(inbox) == [inbox / "a1.json"]


def test_the_stage_that_runs_is_the_last_one_that_the_log_names(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    assert stage_in(log) == ""
    log.write_text("")
    assert stage_in(log) == ""
    log.write_text("Running stage 'one':\n> echo\nRunning stage 'two@a':\nno Running stage 'x'\n")
    assert stage_in(log) == "two@a"


@pytest.mark.processes
def test_a_runner_that_starts_again_takes_up_the_run_that_was_under_way(tmp_path: Path) -> None:
    world: World = new_world(tmp_path)
    committed_to(world, dvc__yaml="stages: {one: {cmd: echo 1 > one.txt, outs: [one.txt]}}\n")
    world.run()
    world.ask("a1", force=True)
    idle = subprocess.Popen(world.command("idle"), env=world.environment())
    try:
        until((world.work / "requests/a1/result.json").exists, 60)
        assert world.result("a1")["ok"] is True
    finally:
        idle.kill()
        idle.wait()
