"""What a task hears from the runners' API: the real one, served as its container serves it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from tests.unit.dvc_runner.conftest import delivered_to

import runner_api
from dvc_runner import door
from dvc_runner.settings import Settings
from dvc_runner.state import read_json, write_json
from dvc_runner_api import Platform, api
from runner_api import Run, Runner, RunnerError, Try

TOKEN = "a-token-of-this-test-alone"  # noqa: S105 - of nothing


def until(done: Callable[[], object]) -> None:
    """Wait until a call says yes."""
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


@dataclass
class Served:
    """The API, which may be stopped and served again at the same port."""

    platform: Platform
    port: int = 0

    def start(self) -> None:
        config = uvicorn.Config(
            api(self.platform, TOKEN),
            port=self.port,
            log_level="error",
            timeout_graceful_shutdown=1,
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        until(lambda: self.server.started)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture
def at(tmp_path: Path) -> Settings:
    """The runner of a project to which something was delivered."""
    said = {"snapshot": "a" * 40, "params": {}, "data": {}, "set": []}
    return delivered_to(tmp_path, said)


@pytest.fixture
def served(at: Settings) -> Iterator[Served]:
    """The API of that project's platform."""
    one = Served(Platform(at.workspace.parents[1]))
    one.start()
    try:
        yield one
    finally:
        one.stop()


@pytest.fixture
def runner(served: Served) -> Runner:
    """What a task has of it."""
    return Runner(f"http://127.0.0.1:{served.port}", TOKEN, patience=20)


def taken(at: Settings, run: Run) -> Settings:
    """Have the runner take up a request."""
    for path in door.lying(at.inbox or Path()):
        door.take(at, path, lambda _: None)
    return replace(at, asked=run.name)


def listened(run: Run) -> tuple[list[str], threading.Thread]:
    """Follow a run in a thread of its own."""
    heard: list[str] = []
    thread = threading.Thread(target=lambda: heard.extend(run.lines()))
    thread.start()
    return heard, thread


def test_a_task_asks_for_one_stage_and_asked_again_it_is_the_same_request(
    runner: Runner, at: Settings
) -> None:
    asked = {"stage": "train", "set": ["lr=2"], "force": False}
    run = runner.submit("churn", "dag run task 1", asked)
    assert runner.submit("churn", "dag run task 1", asked).name == run.name
    assert runner.submit("churn", "dag run task 2", asked).name != run.name
    assert run.state()["state"] == "waiting"
    kept = read_json(taken(at, run).request)
    assert (kept["stage"], kept["set"]) == ("train", ["lr=2"])


class Store(dict[str, Any]):
    """What the tries of a task keep, as Airflow's own store of a task's state does: as JSON."""

    def set(self, key: str, value: Any) -> None:  # noqa: ANN401 - JSON
        self[key] = json.loads(json.dumps(value))


TRAIN = {"stage": "train", "set": ["lr=2"]}


def asked_again(runner: Runner, kept: Store, key: str, *, cleared: str = "0 0") -> Run:
    """Have a try of a task ask for its stage."""
    return runner.submit_once("churn", Try(key, cleared, kept), TRAIN)


def end(at: Settings, run: Run, **result: object) -> None:
    """Have a run end."""
    write_json(replace(at, asked=run.name).result, result)


def requests_of(runner: Runner) -> list[str]:
    """Name what was asked for at a runner."""
    return [one["id"] for one in runner.answer("GET", "projects/churn/runs")["requests"]]


@pytest.mark.parametrize("taken_up", [True, False])
def test_a_try_after_one_that_was_killed_follows_what_that_asked_for_and_ends_it(
    taken_up: bool, runner: Runner, at: Settings
) -> None:
    kept = Store()
    first = asked_again(runner, kept, "try 1")
    if taken_up:
        taken(at, first)
    again = asked_again(runner, kept, "try 2")
    assert again.name == asked_again(runner, kept, "try 3").name == first.name
    assert requests_of(runner) == [first.name]
    again.cancel()
    assert first.state()["ending"]


@pytest.fixture
def unheard(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Store:
    """What a try kept that asked, and was killed before it heard the answer."""
    kept, heard = Store(), Runner.submit

    def killed(*words: Any) -> Run:  # noqa: ANN401 - as it is asked
        heard(*words)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "submit", killed)
        with pytest.raises(SystemExit):
            asked_again(runner, kept, "try 1")
    return kept


def test_a_try_that_was_killed_before_it_heard_the_answer_asked_once_too(
    runner: Runner, at: Settings, unheard: Store
) -> None:
    (name,) = requests_of(runner)
    assert asked_again(runner, unheard, "try 2").name == name
    assert taken(at, asked_again(runner, unheard, "try 3")).request.exists()


def test_what_a_try_asked_for_without_hearing_the_answer_is_ended_by_one_that_asks_anew(
    runner: Runner, unheard: Store
) -> None:
    (name,) = requests_of(runner)
    second = asked_again(runner, unheard, "try 2", cleared="1 1")
    assert second.name != name
    assert Run(runner, "churn", name).state()["ending"]
    assert not second.state()["ending"]


def test_a_try_that_never_came_to_ask_keeps_no_other_from_it(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Store()

    def killed(*_: object) -> Run:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "submit", killed)
        with pytest.raises(SystemExit):
            asked_again(runner, kept, "try 1")
    second = asked_again(runner, kept, "try 2", cleared="1 1")
    assert requests_of(runner) == [second.name]


@pytest.mark.parametrize("why", ["away", "refused"])
def test_a_try_that_cannot_end_what_an_earlier_one_asked_for_fails_and_leaves_it_to_the_next(
    why: str, runner: Runner, served: Served
) -> None:
    kept = Store()
    first = asked_again(runner, kept, "try 1")
    if why == "away":
        served.stop()
    hindered = replace(runner, patience=0.5, token=TOKEN if why == "away" else "wrong")
    try:
        with pytest.raises(RunnerError, match=r"gave no answer for 0 s|Give the token"):
            asked_again(hindered, kept, "try 2", cleared="1 1")
    finally:
        if why == "away":
            served.start()
    assert not first.state()["ending"]
    third = asked_again(runner, kept, "try 3", cleared="1 1")
    assert first.state()["ending"]
    assert requests_of(runner) == [first.name, third.name]


def test_a_try_has_the_result_of_what_ended_while_nobody_followed_it(
    runner: Runner, at: Settings
) -> None:
    kept = Store()
    first = asked_again(runner, kept, "try 1")
    end(taken(at, first), first, ok=True, metrics={"auc": 0.5})
    assert asked_again(runner, kept, "try 2").result()["metrics"] == {"auc": 0.5}
    assert requests_of(runner) == [first.name]


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_try_after_one_that_failed_or_was_ended_asks_anew(
    cancelled: bool, runner: Runner, at: Settings
) -> None:
    kept = Store()
    first = asked_again(runner, kept, "try 1")
    one = taken(at, first)
    if cancelled:
        one.cancelled.touch()
    end(at, first, ok=False, error="Stage train ended with code 3.")
    second = asked_again(runner, kept, "try 2")
    assert second.name != first.name
    assert asked_again(runner, kept, "try 3").name == second.name


@pytest.mark.parametrize("taken_up", [True, False])
def test_a_try_asks_anew_where_the_earlier_run_is_cancelled_and_has_not_ended_yet(
    taken_up: bool, runner: Runner, at: Settings
) -> None:
    kept = Store()
    first = asked_again(runner, kept, "try 1")
    one = taken(at, first)
    first.cancel()
    if taken_up:
        one.cancelled.touch()
        for path in door.lying(at.inbox or Path(), door.CANCELLED):
            path.unlink()
    assert first.state()["state"] == "waiting"
    assert asked_again(runner, kept, "try 2").name != first.name


def test_a_task_that_is_cleared_runs_anew_and_leaves_no_run_behind(
    runner: Runner, at: Settings
) -> None:
    kept = Store()
    first = asked_again(runner, kept, "try 1")
    end(taken(at, first), first, ok=True)
    second = asked_again(runner, kept, "try 2", cleared="1 1")
    assert second.name != first.name
    third = asked_again(runner, kept, "try 3", cleared="2 2")
    assert third.name not in (first.name, second.name)
    assert second.state()["ending"]


def test_a_task_whose_dag_asks_otherwise_now_has_what_it_asks_for(
    runner: Runner, at: Settings
) -> None:
    kept = Store()
    first = asked_again(runner, kept, "try 1")
    second = runner.submit_once("churn", Try("try 2", "0 0", kept), {**TRAIN, "set": ["lr=3"]})
    assert second.name != first.name
    assert first.state()["ending"]
    assert read_json(taken(at, second).request)["set"] == ["lr=3"]


def test_tasks_that_keep_apart_ask_for_runs_of_their_own(runner: Runner) -> None:
    first = asked_again(runner, Store(), "try 1 of a")
    assert asked_again(runner, Store(), "try 1 of b").name != first.name


def test_a_task_has_every_line_of_the_log_once_and_then_the_result(
    runner: Runner, at: Settings
) -> None:
    run = runner.submit("churn", "a", {})
    one = taken(at, run)
    heard, thread = listened(run)
    for text in ("first\nsec", "ond\n", "with ü and \xff\nno end"):
        with one.log.open("ab") as log:
            log.write(text.encode("latin-1" if "\xff" in text else "utf-8"))
        time.sleep(0.1)
    write_json(
        one.result, {"ok": True, "changed": True, "metrics": {"auc": 0.5}, "mlflow_runs": ["m"]}
    )
    thread.join(30)
    assert heard == ["first", "second", "with \ufffd and \ufffd", "no end"]
    found = run.result()
    assert (found["metrics"], found["mlflow_runs"], found["changed"]) == ({"auc": 0.5}, ["m"], True)


@pytest.mark.parametrize("asked", [{"stage": "train"}, {}])
def test_a_run_that_failed_fails_in_the_runners_own_words(
    asked: dict[str, str], runner: Runner, at: Settings
) -> None:
    run = runner.submit("churn", "a", asked)
    write_json(taken(at, run).result, {"ok": False, "error": "Stage train ended with code 3."})
    assert list(run.lines()) == []
    with pytest.raises(RunnerError, match=r"^Stage train ended with code 3\.$"):
        run.result()


def test_a_run_that_was_cancelled_while_it_waited_is_no_result(
    runner: Runner, at: Settings
) -> None:
    run = runner.submit("churn", "a", {})
    run.cancel()
    (withdrawn,) = door.lying(at.inbox or Path(), door.CANCELLED)
    door.take(at, withdrawn, lambda _: None)
    with pytest.raises(RunnerError, match="The run was cancelled before it began"):
        run.result()
    run.cancel()  # what has ended stays as it is
    assert run.state()["state"] == "cancelled"


def test_a_log_goes_on_where_it_was_when_the_api_was_made_anew(
    runner: Runner, served: Served, at: Settings
) -> None:
    run = runner.submit("churn", "a", {})
    one = taken(at, run)
    one.log.write_text("before\nhalf ")
    heard, thread = listened(run)
    time.sleep(0.5)
    served.stop()
    with one.log.open("a") as log:
        log.write("line\nmeanwhile\n")
    served.start()
    with one.log.open("a") as log:
        log.write("after\n")
    write_json(one.result, {"ok": True})
    thread.join(30)
    assert heard == ["before", "half line", "meanwhile", "after"]


def test_a_stage_that_is_quiet_for_long_is_followed_to_its_end(
    runner: Runner, at: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_api, "QUIET_SECONDS", 0.3)
    run = runner.submit("churn", "a", {})
    one = taken(at, run)
    heard, thread = listened(run)
    time.sleep(1.5)
    one.log.write_text("at last\n")
    write_json(one.result, {"ok": True})
    thread.join(30)
    assert heard == ["at last"]


@pytest.mark.usefixtures("at")
def test_what_the_api_refuses_is_said_as_it_says_it(runner: Runner) -> None:
    with pytest.raises(RunnerError, match=r"There is no project 'chum' \(there are churn\)"):
        runner.submit("chum", "a", {})
    with pytest.raises(RunnerError, match="set: 'lr' is none that `dvc exp run"):
        runner.submit("churn", "a", {"set": ["lr"]})
    with pytest.raises(RunnerError, match="Give the token"):
        replace(runner, token="wrong").submit("churn", "a", {})  # noqa: S106 - of nothing


def test_an_api_that_never_answers_is_told_with_what_to_do(served: Served) -> None:
    gone = Runner(f"http://127.0.0.1:{served.port}", TOKEN, patience=0.5)
    served.stop()
    try:
        with pytest.raises(RunnerError, match=r"gave no answer for 0 s .* dvc_runner_api is true"):
            gone.submit("churn", "a", {})
    finally:
        served.start()


def test_where_no_runner_is_named_a_task_says_which_variables_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RUNNER_API_URL", raising=False)
    with pytest.raises(RunnerError, match="set airflow_runner_url and airflow_runner_token"):
        Runner.here()
    (tmp_path / "token").write_text("secret\n")
    monkeypatch.setenv("RUNNER_API_URL", "http://there:1/")
    monkeypatch.setenv("RUNNER_API_TOKEN_FILE", str(tmp_path / "token"))
    assert Runner.here() == Runner("http://there:1", "secret")
