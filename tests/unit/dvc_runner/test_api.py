"""The door for other programs: what the API answers, and what the runner makes of requests."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from dvc_runner import door
from dvc_runner.git import RunnerError
from dvc_runner.places import place
from dvc_runner.settings import Settings
from dvc_runner.state import note_delivered, read_json, whole, write_json
from dvc_runner.turns import ask
from dvc_runner_api import Platform, api

from .conftest import World, committed_to, delivered_to, new_world, state_of

TOKEN = "a-token-of-this-test-alone"  # noqa: S105 - of nothing
DOCS = Path(__file__).parents[3] / "docs/pipelines.md"
Answer = tuple[int, Any]


def until(done: Callable[[], object], patience: float = 30.0) -> None:
    """Wait until a call says yes."""
    deadline = time.monotonic() + patience
    while not done():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


@dataclass(frozen=True)
class Client:
    """What a program says to the API, and hears."""

    address: str
    token: str = TOKEN

    def open(self, path: str, method: str, body: object, **headers: str) -> Any:  # noqa: ANN401 - urllib's
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body)
        given = data.encode() if isinstance(data, str) else data
        headers["Content-Type"] = "application/json"
        request = urllib.request.Request(  # noqa: S310 - the server of this test
            f"{self.address}{path}", method=method, data=given, headers=headers
        )
        return urllib.request.urlopen(request, timeout=60)  # noqa: S310 - as above

    def say(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Ask; the status, and JSON or text."""
        try:
            with self.open(path, method, body, **headers) as reply:
                text = reply.read().decode()
                kind = reply.headers["Content-Type"]
                return reply.status, json.loads(text) if "json" in kind else text
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())["detail"]

    def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        status, answer = self.say("GET", path)
        assert status == 200, answer
        return answer

    def submit(self, body: object = None, **headers: str) -> str:
        """Ask for a run of the one project; its id."""
        status, answer = self.say("POST", "/projects/churn/runs", body, **headers)
        assert status == 202, answer
        return str(answer["id"])

    def run(self, name: str) -> Any:  # noqa: ANN401 - JSON
        return self.get(f"/projects/churn/runs/{name}")


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[FastAPI, Client]]:
    """The API as its container serves it, and a program that has the token."""
    app = api(Platform(Path()), TOKEN)
    config = uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield app, Client(f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def client(served: tuple[FastAPI, Client], tmp_path: Path) -> Client:
    """A program that has the token of a platform with this test's project."""
    app, found = served
    app.state.platform = Platform(tmp_path / "projects", tmp_path / "queue")
    return found


@pytest.fixture
def at(tmp_path: Path) -> Settings:
    """The runner of a project to which something was delivered."""
    said = {"snapshot": "a" * 40, "params": {"lr": 1}, "data": {}, "set": ["lr=2"]}
    return delivered_to(tmp_path, said, RUNNER_QUEUE=str(tmp_path / "queue"))


def taken(at: Settings) -> list[str]:
    """Have the runner take up what lies in its inbox; which requests it begins to run."""
    begun: list[str] = []
    for path in door.lying(at.inbox or Path()):
        door.take(at, path, lambda one: begun.append(one.asked))
    return begun


# --- who may ask


@pytest.mark.parametrize("token", ["", "wrong", f"{TOKEN}x", TOKEN[:-1]])
def test_nothing_but_its_health_is_told_without_the_token(token: str, client: Client) -> None:
    stranger = replace(client, token=token)
    for path in (
        "/projects",
        "/projects/churn/runs",
        "/openapi.json",
        "/docs",
        "/none",
        "/health/",
    ):
        for method in ("GET", "POST", "DELETE"):
            status, said = stranger.say(method, path)
            assert (status, said) == (401, "Give the token: `Authorization: Bearer <token>`.")
    assert stranger.get("/health") == {"ok": True}


def test_a_token_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="The token has 5 characters: give it 16 or more"):
        api(Platform(tmp_path), "12345")


def test_what_may_be_asked_is_described_for_programs(client: Client) -> None:
    described = client.get("/openapi.json")
    assert {
        (path, method) for path, methods in described["paths"].items() for method in methods
    } == {
        ("/health", "get"),
        ("/projects", "get"),
        ("/projects/{project}", "get"),
        ("/projects/{project}/runs", "get"),
        ("/projects/{project}/runs", "post"),
        ("/projects/{project}/runs/{run}", "get"),
        ("/projects/{project}/runs/{run}", "delete"),
        ("/projects/{project}/runs/{run}/log", "get"),
    }


# --- what is asked


def test_every_project_is_told_of_and_none_is_written_to(at: Settings, client: Client) -> None:
    before = state_of(at.workspace)
    (one,) = client.get("/projects")
    assert one == client.get("/projects/churn")
    assert (one["project"], one["state"], one["text"]) == ("churn", "never ran", "no run yet")
    assert client.get("/projects/churn/runs") == {"requests": [], "history": []}
    assert state_of(at.workspace) == before


@pytest.mark.usefixtures("at")
@pytest.mark.parametrize("name", ["chum", "..", "%2e%2e", "churn%2fworkspace"])
def test_a_project_that_is_not_there_is_refused_in_a_sentence(name: str, client: Client) -> None:
    for method, path in (("GET", ""), ("POST", "/runs"), ("GET", "/runs"), ("GET", "/runs/a")):
        status, said = client.say(method, f"/projects/{name}{path}")
        assert status == 404
        assert said == "Not Found" or said.endswith("(there are churn).")


@pytest.mark.usefixtures("at")
@pytest.mark.parametrize("name", ["ab", "..", "%2e%2e", "zz", "a" * 41])
def test_a_request_that_is_not_known_is_refused_in_a_sentence(name: str, client: Client) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/log")):
        status, said = client.say(method, f"/projects/churn/runs/{name}{path}")
        assert status == 404
        assert said == "Not Found" or said.startswith("Project churn knows no request ")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"set": ["lr"]}, "set: 'lr' is none that `dvc exp run --set-param` takes: "),
        ({"set": ["p.yaml:a=[1"]}, "set: 'p.yaml:a=[1' is none that"),
        ({"set": ["lr=1,2"]}, "set: 'lr=1,2' is several runs: put it into grid"),
        ({"grid": ["=1"]}, "grid: '=1' is none that"),
        ({"grid": ["lr=glob(*)"]}, "grid: 'lr=glob(*)' is a pattern"),
        ({"set": "lr=1"}, "body.set: Input should be a valid list."),
        ({"force": "perhaps"}, "body.force: Input should be a valid boolean"),
        ({"sets": []}, "body.sets: Extra inputs are not permitted."),
        ({"grid": ["lr=1,2"], "stage": "train"}, "grid: a stage is of one run"),
        ({"stage": ""}, "body.stage: String should have at least 1 character."),
        (rb'{"set": ["lr=\ud800"]}', r"set: 'lr=\ud800' has half a character"),
        (rb'{"grid": ["\udfff=1"]}', r"grid: '\udfff=1' has half a character"),
        (rb'{"pipeline": "\ud800/dvc.yaml"}', r"pipeline: '\ud800/dvc.yaml' has half"),
        (rb'{"stage": "\udc80"}', "body.stage: Input should be a valid string"),
        (rb'{"\ud800": 1}', "body: Input should be a valid string"),
        ([], "body: Input should be"),
        (b"{half", "body.1: JSON decode error."),
    ],
)
def test_what_can_not_be_run_is_refused_in_a_sentence_at_once(
    body: object, why: str, at: Settings, client: Client
) -> None:
    status, said = client.say("POST", "/projects/churn/runs", body)
    assert status == 422
    assert said.startswith(why)
    assert "\n" not in said
    assert not list((at.inbox or Path()).iterdir())


def test_where_nothing_was_delivered_a_request_is_refused_with_the_way(
    at: Settings, client: Client
) -> None:
    at.delivered.unlink()
    status, said = client.say("POST", "/projects/churn/runs")
    assert status == 409
    assert said.startswith("Nothing was delivered to project churn yet: `make up`")
    with pytest.raises(RunnerError, match="Nothing was delivered to project churn yet"):
        whole(at, {"force": False})


def test_a_request_is_one_of_what_was_last_delivered(at: Settings, client: Client) -> None:
    name = client.submit({"set": ["lr=3"], "pipeline": "b/dvc.yaml"})
    assert client.run(name) == {
        "id": name,
        "state": "waiting",
        "place": 0,
        "ending": False,
        "number": None,
        "result": None,
    }
    assert taken(at) == [name]
    assert not list((at.inbox or Path()).iterdir())
    kept = read_json(replace(at, asked=name).request)
    assert whole(at, kept) == {
        "snapshot": "a" * 40,
        "params": {"lr": 1},
        "set": ["lr=3"],
        "grid": [],
        "force": False,
        "pipeline": "b/dvc.yaml",
    }
    assert client.run(name)["state"] == "waiting"
    note_delivered(at, {"snapshot": "b" * 40, "params": {}})
    assert whole(at, kept)["snapshot"] == "b" * 40


def test_the_same_key_is_the_same_request_however_often_it_is_sent(
    at: Settings, client: Client
) -> None:
    key = {"Idempotency-Key": "run of monday"}
    name = client.submit(**key)
    assert re.fullmatch("[0-9a-f]{32}", name)
    assert client.submit({"force": True}, **key) == name
    assert taken(at) == [name]
    assert client.submit(**key) == name
    assert taken(at) == []
    one = replace(at, asked=name)
    write_json(one.result, {"ok": True})
    write_json(at.history, {"runs": [{"number": 7, "asked": name, "mlflow_runs": ["m"]}]})
    assert client.submit(**key) == name
    one.request.unlink()  # as it is after an hour
    assert client.submit(**key) == name
    found = client.run(name)
    assert (found["state"], found["number"]) == ("done", 7)
    assert found["result"]["mlflow_runs"] == ["m"]
    assert len({name, client.submit(), client.submit()}) == 3


RESULT = {
    "ok": True,
    "changed": True,
    "seconds": 1.5,
    "metrics": {"auc": 0.5},
    "params": {"url": "https://me:secret@host/x.csv"},
    "mlflow_runs": ["m1"],
    "hashes": {"model.bin": "0" * 32},
}
FAILURE = {"ok": False, "error": "It stopped.", "stage": "train", "code": 3, "tail": "words"}


def test_a_run_that_ended_is_told_with_its_outputs_and_without_a_password(
    at: Settings, client: Client
) -> None:
    one = replace(at, asked="ab")
    ask(one, {"force": False})
    write_json(one.result, RESULT)
    found = client.run("ab")
    assert (found["state"], found["place"]) == ("done", None)
    result = found["result"]
    assert result["outputs"] == {"model.bin": "0" * 32}
    assert (result["metrics"], result["mlflow_runs"]) == ({"auc": 0.5}, ["m1"])
    assert result["params"] == {"url": "https://me:***@host/x.csv"}
    assert client.get("/projects/churn/runs")["requests"] == [found]


@pytest.mark.parametrize(("cancelled", "state"), [(False, "failed"), (True, "cancelled")])
def test_a_run_that_did_not_end_well_says_why(
    cancelled: bool, state: str, at: Settings, client: Client
) -> None:
    one = replace(at, asked="ab")
    ask(one, {"force": False})
    if cancelled:
        one.cancelled.touch()
    write_json(one.result, FAILURE)
    found = client.run("ab")
    assert found["state"] == state
    assert [found["result"][key] for key in ("error", "stage", "code")] == [
        "It stopped.",
        "train",
        3,
    ]
    status, said = client.say("DELETE", "/projects/churn/runs/ab")
    assert (status, said) == (409, f"Request ab has ended already ({state}).")


def held(stack: ExitStack, at: Settings, name: str) -> None:
    """Keep a request, and hold it as the process that waits for its turn or serves it does."""
    one = replace(at, asked=name)
    ask(one, {"force": False})
    fcntl.flock(stack.enter_context(one.request.open()), fcntl.LOCK_EX)


def test_who_waits_is_told_how_many_come_before(at: Settings, client: Client) -> None:
    with ExitStack() as stack:
        held(stack, at, "a1")
        write_json(at.running, {"asked": "a1", "since": 0})
        held(stack, at, "b2")
        name = client.submit()
        told = [(run["state"], run["place"]) for run in map(client.run, ("a1", "b2", name))]
        assert told == [("running", None), ("waiting", 1), ("waiting", 2)]
        listed = client.get("/projects/churn/runs")["requests"]
        assert [run["id"] for run in listed] == ["a1", "b2", name]
        with place(replace(at, name="other"), print), place_wanted(at):
            assert client.run("a1") | {"id": ""} == {
                "id": "",
                "state": "waiting",
                "place": 1,
                "ending": False,
                "number": None,
                "result": None,
            }


@contextmanager
def place_wanted(at: Settings) -> Iterator[None]:
    """Stand in the platform's queue, behind whoever is there."""
    with ((at.queue or Path()) / f"{time.time_ns():020d}-churn").open("w") as ticket:
        fcntl.flock(ticket, fcntl.LOCK_EX)
        yield
        Path(ticket.name).unlink()


def test_a_request_beyond_those_that_may_wait_lies_in_the_inbox_and_can_be_cancelled_there(
    at: Settings, client: Client
) -> None:
    with ExitStack() as stack:
        for number in range(door.MOST):
            held(stack, at, f"a{number}")
        first, second = client.submit(), client.submit()
        assert taken(at) == []
        assert client.run(second)["place"] == door.MOST + 1
        assert client.say("DELETE", f"/projects/churn/runs/{first}")[0] == 202
        assert taken(at) == []
        assert client.run(first)["state"] == "cancelled"
        assert client.run(first)["result"]["error"] == door.GONE
    assert taken(at) == [second]


@pytest.mark.parametrize(
    "content", [b"", b"{half", b"[]", b"3", b"\xff\xfe", b'{"set": "a=1"}', b'{"sets": []}']
)
def test_a_file_that_is_no_request_is_refused_where_its_sender_sees_it(
    content: bytes, at: Settings, client: Client
) -> None:
    inbox = at.inbox or Path()
    (inbox / "ab.json").write_bytes(content)
    (inbox / "README").write_text("not mine")
    (inbox / "cd.cancel").touch()
    name = client.submit()
    assert taken(at) == [name]
    found = client.run("ab")
    assert found["state"] == "failed"
    assert found["result"]["error"].startswith("Request ab is no JSON object of set, grid, force")
    assert [path.name for path in inbox.iterdir()] == ["README"]


def test_a_request_that_was_kept_and_not_begun_is_begun_and_no_other_twice(at: Settings) -> None:
    def broken(_: Settings) -> None:
        raise OSError("no process")

    door.submit(at.inbox or Path(), "ab", {})
    (path,) = door.lying(at.inbox or Path())
    with pytest.raises(OSError, match="no process"):
        door.take(at, path, broken)
    assert taken(at) == ["ab"]
    assert taken(at) == []


def test_a_process_that_was_killed_is_told_from_one_that_is_coming(at: Settings) -> None:
    for name in ("aa", "bb"):
        ask(replace(at, asked=name), {"force": False})
    (replace(at, asked="aa").own / "pid").write_text("1")
    assert door.killed(at) == ["aa"]
    door.refuse(replace(at, asked="aa"), door.KILLED)
    assert door.killed(at) == []


# --- what is said


def test_a_request_that_was_cancelled_is_ending_until_it_has_ended(
    at: Settings, client: Client
) -> None:
    name = client.submit()
    assert client.run(name)["ending"] is False
    client.say("DELETE", f"/projects/churn/runs/{name}")
    assert client.run(name)["ending"] is True
    (withdrawn,) = door.lying(at.inbox or Path(), door.CANCELLED)
    door.take(at, withdrawn, lambda _: None)
    found = client.run(name)
    assert (found["state"], found["ending"]) == ("cancelled", False)
    with ExitStack() as stack:
        held(stack, at, "ab")
        client.say("DELETE", "/projects/churn/runs/ab")
        # the process of the test is not to be ended
        (withdrawn,) = door.lying(at.inbox or Path(), door.CANCELLED)
        withdrawn.unlink()
        replace(at, asked="ab").cancelled.touch()
        assert client.run("ab")["ending"] is True


def test_a_log_is_read_from_any_place_and_followed_to_its_end(at: Settings, client: Client) -> None:
    one = replace(at, asked="ab")
    ask(one, {"force": False})
    one.log.write_text("first: ü\n")
    path = "/projects/churn/runs/ab/log"
    assert client.get(path) == "first: ü\n"
    assert client.get(f"{path}?offset=7") == "ü\n"
    assert client.get(f"{path}?offset=99") == ""
    assert client.say("GET", f"{path}?offset=-1")[0] == 422
    with client.open(f"{path}?follow=true", "GET", None) as reply:
        assert reply.readline().decode() == "first: ü\n"
        with one.log.open("a") as log:
            log.write("second\n")
        assert reply.readline() == b"second\n"
        with one.log.open("a") as log:
            log.write("last\n")
        write_json(one.result, {"ok": True})
        assert reply.read() == b"last\n"


# --- with a runner


STAGE = {
    "train": {
        "cmd": "echo said by the stage; [ -z $HOLD ] || { touch $HOLD; sleep 600; }; "
        "cp params.yaml out.txt",
        "params": ["train.lr"],
        "outs": ["out.txt"],
    }
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A project that was delivered and run once."""
    (tmp_path / "projects/churn/inbox").mkdir(parents=True)
    made = new_world(tmp_path / "projects/churn")
    committed_to(made, dvc__yaml=json.dumps({"stages": STAGE}), params__yaml="train: {lr: 1}\n")
    made.run()
    return made


@contextmanager
def idle(world: World, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """The runner, as its container starts it."""
    environment = world.environment(RUNNER_INBOX=str(world.root / "inbox"), **more)
    with subprocess.Popen(world.command("idle"), env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def example() -> str:
    """The commands that the documents give."""
    section = DOCS.read_text().partition("## From other programs\n")[2]
    return section.split("```\n")[1]


@pytest.mark.processes
def test_the_documents_example_runs_follows_and_tells_what_came_of_it(
    world: World, client: Client
) -> None:
    with idle(world) as runner:
        done = subprocess.run(
            ["bash", "-euc", example().replace("http://dvc-runner-api:8000", client.address)],
            env={**os.environ, "token": TOKEN},
            capture_output=True,
            text=True,
            check=True,
        )
        log, _, told = done.stdout.rpartition("\n")
        assert "said by the stage" in log
        found = json.loads(told)
        assert (found["state"], found["number"]) == ("done", 2)
        assert (world.work / "project/out.txt").read_text() == "train: {lr: 0.1}\n"
        assert found["result"]["outputs"].keys() == {"out.txt"}
        began = time.monotonic()
        runner.send_signal(signal.SIGTERM)
        assert runner.wait(10) == -signal.SIGTERM
        assert time.monotonic() - began < 1


@pytest.mark.processes
def test_what_waits_is_served_after_a_restart_and_what_runs_can_be_cancelled(
    world: World, client: Client, tmp_path: Path
) -> None:
    hold = tmp_path / "held"
    first = client.submit({"set": ["train.lr=2"]})
    with idle(world, HOLD=str(hold)):
        until(hold.exists)
        assert client.run(first)["state"] == "running"
    second, third = (client.submit({"set": [f"train.lr={each}"]}) for each in (3, 4))
    assert client.run(third)["state"] == "waiting"
    with idle(world):
        until(lambda: "Waiting for the run" in client.get(f"/projects/churn/runs/{third}/log"))
        assert [client.run(name)["place"] for name in (second, third)] == [1, 2]
        assert client.say("DELETE", f"/projects/churn/runs/{first}")[0] == 202
        until(lambda: client.run(first)["state"] == "cancelled")
        until(lambda: (world.work / "project/out.txt").read_text() == "train: {lr: 3}\n")
        said = world.call("cancel", RUNNER_INBOX=str(world.root / "inbox")).stdout
        assert {one["cancelled"] for one in json.loads(said)["cancelled"]} >= {third}
        until(lambda: client.run(third)["state"] == "cancelled")
