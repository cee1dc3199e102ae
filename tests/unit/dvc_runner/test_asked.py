"""What runners are asked, and what a person reads of their answers."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from tests.unit.conftest import load

asked: Any = load("dvc_runner/action_plugins/dvc_asked.py")
PROJECTS = [
    {"name": name, "container": f"lab-dvc-runner-{name}", "timeout": 90} for name in ("one", "two")
]
ANSWERS = {
    "one": {"rc": 0, "stdout": '{"text": "run 3, all well", "runs": 3}\n', "stderr": ""},
    "two": {"rc": 1, "stdout": "", "stderr": "Error: No such container: lab-dvc-runner-two\n"},
}
commands: list[str] = []


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is shown."""
    lines: list[str] = []
    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    monkeypatch.setattr(Display, "display", lambda _, text, *__, **___: lines.append(text))
    return lines


def ask(check: bool = False, **given: object) -> dict[str, Any]:
    """Ask both projects."""
    it: Any = object.__new__(asked.ActionModule)
    it._task = SimpleNamespace(args={"projects": PROJECTS, **given}, check_mode=check)
    commands.clear()

    def on_host(command: str) -> dict[str, Any]:
        commands.append(command)
        return ANSWERS[command.split()[2].rpartition("-")[2]]

    it._on_host = on_host
    found: dict[str, Any] = it.run()
    return found


def test_each_answer_is_a_line_with_the_projects_name(shown: list[str]) -> None:
    found = ask(words=["status"], lenient=True)
    assert shown[0].split(maxsplit=1) == ["one", "run 3, all well"]
    assert "lab-dvc-runner-two is not there: `make up` with this project starts it." in shown[1]
    assert found["answers"]["one"]["runs"] == 3


def test_the_state_of_a_project_comes_with_the_schedule_of_its_entry(
    shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    daily = [{**one, "schedule": "@daily"} for one in PROJECTS]
    monkeypatch.setitem(globals(), "PROJECTS", daily)
    found = ask(words=["status"], lenient=True)
    assert shown[0].split(maxsplit=1) == ["one", "run 3, all well; schedule @daily"]
    assert found["answers"]["one"] == {"text": "run 3, all well", "runs": 3, "schedule": "@daily"}
    assert shown[1].endswith("starts it.")
    ask(words=["history"], lenient=True)
    assert "schedule" not in shown[2]


def test_who_asks_for_more_than_a_look_is_told_that_a_runner_is_not_there(
    shown: list[str],
) -> None:
    with pytest.raises(AnsibleActionFail, match="lab-dvc-runner-two is not there"):
        ask(words=["reproduce", "3"])
    assert len(shown) == 2


def test_what_runs_a_project_again_has_its_limit_of_time(shown: list[str]) -> None:
    assert ask(words=["reproduce", "3"], projects=PROJECTS[:1])["answers"]["one"]["runs"] == 3
    assert commands == ["docker exec lab-dvc-runner-one dvc_runner reproduce 3 --timeout 90"]
    with pytest.raises(AnsibleActionFail, match="dvc_runner_timeout is '6h'"):
        ask(words=["reproduce", "3"], projects=[{**PROJECTS[0], "timeout": "6h"}])
    assert len(shown) == 1


def test_in_check_mode_nothing_is_asked_that_may_run(shown: list[str]) -> None:
    assert ask(check=True, words=["reproduce", "3"])["skipped"]
    assert shown == []


@pytest.mark.parametrize(
    ("said", "text", "known"),
    [
        ('{"table": "a  b"}\n', "a  b", {"table": "a  b"}),
        ('one line\n{"same": true}\n', "one line", {"same": True}),
        ('{"runs": []}', json.dumps({"runs": []}, indent=2), {"runs": []}),
        ("no JSON\n", "no JSON", None),
        ("", "", None),
    ],
)
def test_an_answer_is_text_for_people_and_json_for_programs(
    said: str, text: str, known: object
) -> None:
    assert asked.split(said) == (text, known)
