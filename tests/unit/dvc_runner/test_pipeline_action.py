"""What the machine that runs Ansible hands to the runner, and how."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.conftest import ROLES, load

from dvc_runner.environments.locks import environment_of
from dvc_runner.environments.target import Target
from dvc_runner.git import RunnerError

from .conftest import RUNNER, git, repository

action = load("dvc_runner/action_plugins/dvc_pipeline.py")
ActionModule: Any = action.ActionModule
REQUEST = {"params": {}, "data": {"source": "https://user:TOPSECRET@host/wine.csv"}}


class Host(ActionModule):  # type: ignore[misc]  # loaded by path
    """The action without Ansible: its commands run here, their words are noted."""

    def __init__(self, workspace: Path, check: bool = False, **more: Any) -> None:  # noqa: ANN401 - as Ansible has it
        args = {"cache": str(workspace / "cache"), **more}
        self._task = SimpleNamespace(args=args, check_mode=check)
        self.workspace = workspace
        self.calls: list[list[str]] = []

    def _compute_environment_string(self) -> str:
        return ""

    def _low_level_execute_command(self, command: str, in_data: bytes) -> dict[str, Any]:
        words = command.split()
        self.calls.append(words)
        done = subprocess.run(
            [sys.executable, ROLES / RUNNER, *words[words.index("dvc_runner") + 1 :]],
            input=in_data if "-i" in words else b"",  # as docker exec does
            env={"RUNNER_WORKSPACE": str(self.workspace)},
            capture_output=True,
            check=False,
        )
        return {
            "rc": 0 if "-d" in words else done.returncode,
            "stdout": done.stdout.decode(),
            "stderr": done.stderr.decode(),
        }


def test_a_request_reaches_the_runner_and_is_on_no_command_line(tmp_path: Path) -> None:
    host = Host(tmp_path)
    state = host._ask("runner", "check", given=REQUEST)
    assert state["needed"] is True
    kept = tmp_path / "requests/ab12/request.json"
    host._ask("runner", "request", "ab12", given=REQUEST)
    assert json.loads(kept.read_text()) == REQUEST
    host._begin(action.Run({"container": "runner"}, REQUEST, {}, state, asked="ab12"))
    assert kept.read_text() == "{}", "an address with a password outlives the run it was for"
    assert [call[-2:] for call in host.calls] == [
        ["dvc_runner", "check"],
        ["request", "ab12"],
        ["request", "ab12"],
        ["run", "ab12"],
    ]
    assert "TOPSECRET" not in str(host.calls)


AWAY = {"rc": 1, "stdout": "", "stderr": "Error: No such container: runner\n"}
STOPPED = {**AWAY, "stderr": "Error response from daemon: Container 54c7 is not running\n"}
REFUSED = {**AWAY, "stderr": "Cannot connect to the Docker daemon\n"}
SILENT = {"running": False, "lines": [], "offset": 0, "result": None}
GOING = {**SILENT, "running": True}
ENDED = {**SILENT, "result": {"ok": True}}
GONE = "ended without a result"


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is shown."""
    lines: list[str] = []
    monkeypatch.setattr(action.ActionBase, "run", lambda *_: {})
    monkeypatch.setattr(action.Display, "display", lambda _, text, *__: lines.append(text))
    return lines


def followed(at: Path, *answers: dict[str, Any]) -> tuple[str, int]:
    """Follow a run whose runner answers so; returns how that ended, after how many polls."""
    host = Host(at)
    run = action.Run({"container": "runner"}, REQUEST, {}, {})
    for polls, one in enumerate(answers, 1):
        reply = one if "rc" in one else {"rc": 0, "stdout": json.dumps(one), "stderr": ""}
        host._on_host = lambda *_, reply=reply: reply
        try:
            if host._look(run, ""):
                return "well", polls
        except action.AnsibleActionFail as error:
            return str(error), polls
    return "goes on", len(answers)


@pytest.mark.parametrize("gone", [AWAY, STOPPED])
def test_a_run_is_followed_over_its_container_that_is_made_anew_and_not_for_ever(
    tmp_path: Path, shown: list[str], gone: dict[str, Any]
) -> None:
    # it is taken up again when the store and the server answer
    assert followed(tmp_path, gone, gone, *[SILENT] * 30, ENDED)[0] == "well"
    assert shown == ["The runner is away: this waits for it."]
    assert followed(tmp_path, *[AWAY] * 100) == (
        "runner is not there: `make up` with this project starts it.",
        61,
    )


def test_a_long_run_is_followed_though_a_poll_in_a_hundred_fails(
    tmp_path: Path, shown: list[str]
) -> None:
    hours = [REFUSED, *[GOING] * 99] * 180
    assert followed(tmp_path, *hours, ENDED) == ("well", 18001)
    (line,) = set(shown)
    assert line.startswith(
        "The runner does not answer (runner: Cannot connect to the Docker daemon)"
    )


def test_a_runner_that_answers_nothing_but_failures_is_told_with_the_last(
    tmp_path: Path, shown: list[str]
) -> None:
    said = "runner: Cannot connect to the Docker daemon"
    assert followed(tmp_path, *[AWAY] * 10, *[REFUSED] * 90) == (said, 61)
    assert len(shown) == 2


@pytest.mark.parametrize("before", [(), (REFUSED,), (AWAY, GOING), (AWAY, SILENT, GOING)], ids=len)
def test_a_run_that_was_killed_is_told_within_seconds_whatever_was_before(
    tmp_path: Path, shown: list[str], before: tuple[dict[str, Any], ...]
) -> None:
    del shown
    said, polls = followed(tmp_path, *before, *[SILENT] * 300)
    assert GONE in said
    assert polls == len(before) + 11


def test_a_run_that_nothing_takes_up_again_is_told_in_the_end(
    tmp_path: Path, shown: list[str]
) -> None:
    del shown
    said, polls = followed(tmp_path, AWAY, *[SILENT] * 300)
    assert GONE in said
    assert polls == 202


UP: dict[str, Any] = {"brought_up": True}


@pytest.mark.parametrize(
    ("given", "by", "released"),
    [
        (UP, "dead", True),
        (UP, "alive", False),
        (UP, "another-machine:1", False),
        (UP, "", False),
        # make pipeline: the platform may be half way between its secrets
        ({"brought_up": False}, "dead", False),
        ({**UP, "check": True}, "dead", False),
    ],
)
def test_a_platform_that_was_brought_up_frees_the_queue_of_a_rotation_that_is_dead_and_of_no_other(
    tmp_path: Path, shown: list[str], given: dict[str, Any], by: str, released: bool
) -> None:
    del shown
    with subprocess.Popen(["true"]) as process:
        process.wait()
    known = {"dead": process.pid, "alive": os.getpid()}
    by = f"{socket.gethostname()}:{known[by]}" if by in known else by
    projects = [{"name": name, "container": name, "source": name} for name in ("wine", "churn")]
    host = Host(tmp_path, projects=projects, **given)
    host._request = lambda *_: (REQUEST, {}, dict)
    state = {"needed": False, "held": {"by": by, "until": 1.0} if by else {}}
    host._check_all = lambda _: {"wine": "disk full", "churn": state}
    asked: list[tuple[str, ...]] = []
    host._ask = lambda *words, **_: asked.append(words)
    with pytest.raises(action.AnsibleActionFail, match="disk full"):
        host.run()
    assert asked == [("churn", "release", by)] * released


@pytest.mark.parametrize("value", [90, "90"])
def test_a_time_limit_is_a_number_however_it_is_given(value: object) -> None:
    assert action.seconds(value) == 90


@pytest.mark.parametrize("value", ["6h", "", -1, 1.5, None])
def test_another_time_limit_is_refused_with_the_variables_name(value: object) -> None:
    with pytest.raises(RunnerError, match=r"dvc_runner_timeout is .*: give a whole number"):
        action.seconds(value)


def test_a_relative_path_is_taken_from_where_ansible_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository(tmp_path / "churn", train__py="1\n")
    monkeypatch.chdir(tmp_path)
    host = Host(tmp_path)
    given = {"source": "churn", "params": {}, "data": "", "timeout": "5"}
    relative, _, _ = host._request(given)
    absolute, _, _ = host._request({**given, "source": str(tmp_path / "churn")})
    assert relative == absolute
    assert relative["timeout"] == 5
    assert relative["source"] == f"/workspace/inputs/{relative['snapshot']}.bundle"


def test_another_schedule_asks_for_nothing_else(tmp_path: Path) -> None:
    repository(tmp_path / "churn", train__py="1\n")
    given = {"source": str(tmp_path / "churn"), "params": {}, "data": "", "timeout": 5}
    asked = [Host(tmp_path)._request({**given, "schedule": at})[0] for at in ("", "@daily")]
    assert asked[0] == asked[1]


@pytest.mark.parametrize(("ref", "content"), [("", "new\n"), ("v1", "old\n")])
def test_a_git_address_becomes_a_snapshot_here_and_the_runner_hears_of_no_address(
    ref: str, content: str, tmp_path: Path
) -> None:
    upstream = repository(tmp_path / "upstream", train__py="old\n")
    git(upstream, "tag", "v1")
    (upstream / "train.py").write_text("new\n")
    git(upstream, "commit", "--quiet", "--all", "-m", "new")
    given = {"source": upstream.as_uri(), "ref": ref, "params": {}, "data": "", "timeout": 0}
    request, deliveries, _ = Host(tmp_path)._request({**given, "token": "TOPSECRET"})
    assert request["source"] == f"/workspace/inputs/{request['snapshot']}.bundle"
    assert "TOPSECRET" not in str(request)
    assert upstream.as_uri() not in str(request)
    (kept,) = deliveries.values()
    assert git(kept, "show", f"{request['snapshot']}:train.py") == content.strip()
    note = json.loads(git(kept, "log", "-1", "--format=%B", request["snapshot"]))
    assert note["source_commit"] == git(upstream, "rev-parse", f"{ref or 'HEAD'}^{{commit}}")


@pytest.mark.parametrize("address", [True, False])
def test_a_subdirectory_of_a_source_is_the_project(address: bool, tmp_path: Path) -> None:
    upstream = repository(tmp_path / "upstream", train__py="1\n")
    (upstream / "churn").mkdir()
    (upstream / "churn/dvc.yaml").write_text("stages: {}\n")
    git(upstream, "add", "--all")
    git(upstream, "commit", "--quiet", "-m", "churn")
    source = upstream.as_uri() if address else str(upstream)
    given = {"source": source, "params": {}, "data": "", "timeout": 0}
    request, deliveries, _ = Host(tmp_path)._request({**given, "subdirectory": "churn"})
    (kept,) = deliveries.values()
    assert git(kept, "ls-tree", "-r", "--name-only", request["snapshot"]) == "dvc.yaml"
    for name in ("chrun", "..", str(tmp_path)):
        with pytest.raises(RunnerError, match=f"upstream has no directory {name}: correct the"):
            Host(tmp_path)._request({**given, "subdirectory": name})


@pytest.mark.parametrize(
    ("given", "found"),
    [(["a=1", 2], ["a=1", "2"]), ("a=1 b=2", ["a=1", "b=2"]), ("", []), (None, []), ([], [])],
)
def test_words_on_a_command_line_are_the_list_that_they_mean(
    given: object, found: list[str]
) -> None:
    assert action.words(given) == found


def test_the_packages_that_a_run_asks_for_are_those_of_the_files_it_is_of(tmp_path: Path) -> None:
    upstream = repository(tmp_path / "upstream", requirements__txt="")
    given = {"name": "one", "source": upstream.as_uri(), "params": {}, "data": "", "timeout": 0}
    environments = {"one": {"digest": "of an earlier fetch"}}

    def asked(check: bool = False, **more: object) -> str:
        host = Host(tmp_path, check, environments=environments, python="3.13")
        request, _, _ = host._request({**given, **more})
        return str(request["environment"])

    of_files = environment_of(upstream, tmp_path / "cache", Target("3.13")).digest
    assert asked() == of_files
    other = environment_of(upstream, tmp_path / "cache", Target("3.13"), system=["curl"]).digest
    assert asked(system_packages=["curl"]) == other != of_files
    assert asked(check=True) == ""
    # an image of the user's own is taken as it is
    assert asked(name="two") == ""
    (upstream / "environment.yml").write_text("dependencies: [python=3.8]\n")
    git(upstream, "rm", "--quiet", "requirements.txt")
    git(upstream, "add", "--all")
    git(upstream, "commit", "--quiet", "-m", "faulty")
    with pytest.raises(RunnerError, match=r"environment.yml asks for Python"):
        asked()
    assert asked(check=True) == ""


def test_many_runners_are_asked_at_once_and_each_answer_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = tmp_path / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(
        "#!/bin/sh\n"
        'echo "$@" >>"$0.said"\n'
        'if [ "$3" = gone ]; then echo "Error: No such container: gone" >&2; exit 1; fi\n'
        "sleep 1\n"
        "read -r given\n"
        'printf \'{"needed": true, "asked": "%s", "given": %s}\\n\' "$3" "$given"\n'
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:{os.environ['PATH']}")
    host: Any = Host(tmp_path)
    began = time.monotonic()
    given = {name: {**REQUEST, "of": name} for name in ("a", "b", "gone", "c", "d", "e", "f")}
    host._low_level_execute_command = in_shell
    found = host._check_all(given)
    assert time.monotonic() - began < 5
    assert found.pop("gone") == "gone is not there: `make up` with this project starts it."
    assert found == {
        name: {"needed": True, "asked": name, "given": given[name]}
        for name in given
        if name != "gone"
    }
    assert "TOPSECRET" not in docker.with_name("docker.said").read_text()


def in_shell(command: str, in_data: bytes) -> dict[str, Any]:
    """Run a command as Ansible does on a host."""
    done = subprocess.run(["sh", "-c", command], input=in_data, capture_output=True, check=False)
    assert b"TOPSECRET" not in command.encode()
    return {
        "rc": done.returncode,
        "stdout": done.stdout.decode(),
        "stderr": done.stderr.decode(),
    }
