"""What `make rotate` asks of the runners before it forgets a secret, and what it says meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from tests.unit.conftest import load

held: Any = load("dvc_runner/action_plugins/dvc_hold.py")
pipeline: Any = load("dvc_runner/action_plugins/dvc_pipeline.py")
PROJECTS = [{"name": name, "container": f"lab-dvc-runner-{name}"} for name in ("wine", "churn")]
WINE = {"project": "wine", "asked": "ab", "began": "01:02:03 UTC"}
GONE = {"rc": 1, "stdout": "", "stderr": "Error: No such container: lab-dvc-runner-wine\n"}


ME = held.holder()
# 11:06:40 UTC
UNTIL = 40000.0


def answer(*in_work: dict[str, str], by: str = ME) -> dict[str, Any]:
    """What a runner answers."""
    said = json.dumps({"in_work": in_work, "by": by, "until": UNTIL})
    return {"rc": 0, "stdout": said, "stderr": ""}


def ended() -> int:
    """The number of a process that is no more."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def began(pid: int) -> str:
    """When a process began, in ticks since the start of its machine."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return words[19]


HOST, PID, NAMESPACE, BEGAN = ME.split(":")
# of this machine, and no more
DEAD = {
    "ended": f"{HOST}:{ended()}:{NAMESPACE}:{BEGAN}",
    "its number was given again": f"{HOST}:{PID}:{NAMESPACE}:{int(BEGAN) - 1}",
    "of an earlier release": f"{HOST}:{ended()}",
}
# alive, or nobody here knows
MAYBE = {
    "another's": f"{HOST}:1:{NAMESPACE}:{began(1)}",
    "another's of an earlier release": f"{HOST}:1",
    "another machine's": f"another-machine:{ended()}:{NAMESPACE}:{BEGAN}",
    "another machine's of an earlier release": f"another-machine:{ended()}",
    "another container's of one host name": f"{HOST}:{ended()}:1:{BEGAN}",
    "unseen when it began": f"{HOST}:{PID}:{NAMESPACE}:",
}


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is shown."""
    lines: list[str] = []
    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    monkeypatch.setattr(Display, "display", lambda _, text, *__, **___: lines.append(text))
    monkeypatch.setattr(held, "POLL_SECONDS", 0.01)
    return lines


def ask(
    answers: list[dict[str, Any]],
    state: str = "held",
    timeout: object = 60,
    check: bool = False,
    **given: object,
) -> list[str]:
    """Hold or release; the last of the answers stays. Returns what the runners were asked."""
    it: Any = object.__new__(held.ActionModule)
    it._task = SimpleNamespace(
        args={
            "projects": PROJECTS,
            "declared": ["wine", "churn"],
            "image": "",
            "state": state,
            "timeout": timeout,
            **given,
        },
        check_mode=check,
    )
    asked: list[str] = []

    def on_host(command: str) -> dict[str, Any]:
        asked.append(command.removeprefix("docker exec lab-dvc-runner-").removesuffix(f" {ME}"))
        return answers.pop(0) if len(answers) > 1 else answers[0]

    it._on_host = on_host
    try:
        result = it.run()
        assert result.get("changed", False) is False
        asked += filter(None, [result.get("if_it_fails_later")])
    except AnsibleActionFail as error:
        asked.append(str(error))
    return asked


def test_it_says_what_it_waits_for_and_holds_the_queue_for_the_rest_once_nothing_is_in_work(
    shown: list[str],
) -> None:
    *asked, left = ask([answer(WINE), answer(WINE), answer()])
    assert asked == [*["wine dvc_runner hold 60"] * 3, "wine dvc_runner hold 1800"]
    assert left.startswith(
        "No run begins until 11:06:40 UTC: the rotation has the queue held. `make"
    )
    (line,) = shown
    assert line.startswith("  the queue is held; in work is wine since 01:02:03 UTC: this waits")
    assert line.endswith("60 s at most")


@pytest.mark.parametrize(("timeout", "still"), [(0, ""), ("0", ""), (1, "after 1 s")])
def test_a_run_that_takes_longer_is_named_with_what_to_do_and_the_queue_goes_on(
    shown: list[str], timeout: object, still: str
) -> None:
    *_, released, said = ask([answer(WINE)], timeout=timeout)
    assert released == "wine dvc_runner release"
    assert said.startswith("Nothing was changed: in work is wine since 01:02:03 UTC")
    assert still in said
    assert "Wait for the end or end it (`make cancel PROJECT=wine`), then try again." in said
    assert len(shown) == bool(still)


def test_a_platform_whose_runners_are_not_there_has_nothing_in_work(shown: list[str]) -> None:
    assert len(ask([GONE])) == 4
    assert shown == []
    assert ask([GONE, answer(), answer()])[1:3] == [
        "churn dvc_runner hold 60",
        "wine dvc_runner hold 1800",
    ]


@pytest.mark.parametrize("by", MAYBE.values(), ids=MAYBE)
def test_a_second_rotation_is_refused_while_one_goes_on_or_may(shown: list[str], by: str) -> None:
    asked, said = ask([answer(WINE, by=by)])
    assert asked == "wine dvc_runner hold 60"
    assert said == (
        f"Nothing was changed: another rotation (host and process {':'.join(by.split(':')[:2])}) "
        "has the queue held, until 11:06:40 UTC if it says no more: wait for its end, then try "
        "again."
    )
    assert shown == []


def test_when_a_process_began_is_read_whatever_its_program_is_called(tmp_path: Path) -> None:
    odd = tmp_path / "a) 1 (b c"
    odd.symlink_to(shutil.which("sleep") or "")
    seen = []
    for program in ("sleep", odd, "sleep"):
        with subprocess.Popen([program, "60"]) as process:
            time.sleep(0.05)
            seen.append(int(pipeline.began(process.pid)))
            process.kill()
    assert seen == sorted(set(seen))
    assert seen[2] - seen[0] < 60 * os.sysconf("SC_CLK_TCK")


def test_a_task_whose_rotation_was_killed_holds_nothing_any_more(
    shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # init is its parent then
    parents = [os.getppid(), os.getppid(), os.getppid(), 1]
    monkeypatch.setattr(os, "getppid", lambda: parents.pop(0) if len(parents) > 1 else parents[0])
    *asked, said = ask([answer(WINE)])
    assert asked == ["wine dvc_runner hold 60"] * 2
    assert said == "The ansible-playbook that this is a task of was killed."
    assert len(shown) == 1


def test_of_two_rotations_that_begin_at_once_one_is_refused(shown: list[str]) -> None:
    *asked, said = ask([answer(), answer(by="another-machine:1")])
    assert asked == ["wine dvc_runner hold 60", "wine dvc_runner hold 1800"]
    assert "another rotation" in said
    assert shown == []


@pytest.mark.parametrize("dead", DEAD.values(), ids=DEAD)
def test_a_rotation_that_was_killed_is_followed_by_the_next_at_once(
    shown: list[str], dead: str
) -> None:
    *asked, _ = ask([answer(by=dead), answer(), answer()])
    assert asked == [
        "wine dvc_runner hold 60",
        f"wine dvc_runner release {dead}",
        "wine dvc_runner hold 60",
        "wine dvc_runner hold 1800",
    ]
    assert shown == []


# as Docker and shells say it
DENIED = (
    "permission denied while trying to connect to the Docker daemon socket at "
    "unix:///var/run/docker.sock: dial unix /var/run/docker.sock: connect: permission denied"
)
DENIED_SINCE_29 = "permission denied while trying to connect to the docker API at unix:///x.sock"
NO_SOCKET = (
    "unix:///var/run/docker.sock; check if the path is correct and if the daemon is running: dial "
    "unix /var/run/docker.sock: connect: no such file or directory"
)
RESTARTING = (
    "Error response from daemon: Container 54c7879e is restarting, wait until the container is "
    "running"
)
LACKING = (
    "OCI runtime exec failed: exec failed: unable to start container process: exec: "
    '"dvc_runner": executable file not found in $PATH: unknown'
)


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        (1, "Error response from daemon: No such container: lab-dvc-runner-wine"),
        (1, "Error response from daemon: Container 54c7879e is not running"),
        (1, RESTARTING),
        (1, f"failed to connect to the docker API at {NO_SOCKET}"),
        (1, "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is it running?"),
        (127, "/bin/sh: 1: docker: not found"),
        (127, "bash: line 1: docker: command not found"),
    ],
)
def test_where_no_runner_is_nothing_is_in_work(shown: list[str], code: int, complaint: str) -> None:
    assert len(ask([{"rc": code, "stdout": "", "stderr": complaint}])) == 4
    assert shown == []


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        (1, DENIED),
        (1, DENIED_SINCE_29),
        (126, LACKING),
        (127, LACKING),
        (1, "sh: 1: docker: not found"),
        (1, "Error response from daemon: Container 54c7879e is paused, unpause the container"),
        (1, "disk full"),
    ],
)
def test_who_cannot_ask_what_is_in_work_keeps_the_secrets_as_they_are(
    shown: list[str], code: int, complaint: str
) -> None:
    *asked, said = ask([{"rc": code, "stdout": "", "stderr": complaint}])
    assert asked == ["wine dvc_runner hold 60", "churn dvc_runner hold 60"]
    assert said == f"lab-dvc-runner-wine: {complaint}"
    assert ask([{"rc": code, "stdout": "", "stderr": complaint}, GONE])[-1] == said
    assert shown == []


@pytest.mark.parametrize("complaint", [RESTARTING, LACKING])
def test_one_sick_runner_forbids_no_rotation_where_another_one_answers(
    shown: list[str], complaint: str
) -> None:
    sick = {"rc": 1, "stdout": "", "stderr": complaint}
    *asked, left = ask([sick, answer(WINE), sick, answer(), sick, answer()])
    assert asked == [
        *["wine dvc_runner hold 60", "churn dvc_runner hold 60"] * 2,
        *["wine dvc_runner hold 1800", "churn dvc_runner hold 1800"],
    ]
    assert left.startswith("No run begins until 11:06:40 UTC")
    assert len(shown) == 1


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("", "cannot be held: `make up`, then try again."),
        ("ours/runner:1", "cannot be held: build dvc_runner_image (ours/runner:1) anew from this"),
    ],
)
def test_a_runner_of_an_earlier_release_is_told_with_what_brings_one_of_this(
    shown: list[str], image: str, said: str
) -> None:
    del shown
    complaint = "argument command: invalid choice: 'hold'"
    *_, last = ask([{"rc": 2, "stdout": "", "stderr": complaint}], image=image)
    assert said in last


def test_a_run_that_nobody_requested_is_not_said_to_be_cancelled(shown: list[str]) -> None:
    del shown
    again, ad_hoc = ({**WINE, "project": name, "asked": ""} for name in ("churn", "else"))
    *_, said = ask([answer(WINE, again, ad_hoc)], timeout=0)
    assert (
        "or end it (`make cancel PROJECT=wine`, the `make reproduce` of churn is ended by `docker "
        "restart lab-dvc-runner-churn`, the `make reproduce` of else ends by itself alone), then"
    ) in said


@pytest.mark.parametrize("declared", [["wine"], []])
def test_a_project_that_is_in_no_inventory_is_not_said_to_be_cancelled_by_its_name(
    shown: list[str], declared: list[str]
) -> None:
    del shown
    runs = ({**WINE, "project": name} for name in ("churn", "else"))
    *_, said = ask([answer(*runs)], timeout=0, declared=declared)
    assert "PROJECT=churn" not in said
    for name in ("churn", "else"):
        way_out = f"`make cancel PROJECT=` with the directory or address that {name} was begun with"
        assert way_out in said


def test_a_check_holds_nothing_and_what_is_released_is_asked_of_one(shown: list[str]) -> None:
    assert ask([answer()], check=True) == []
    assert ask([answer()], "released") == ["wine dvc_runner release"]
    assert shown == []
