"""What Ansible is told of the environments of projects."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from tests.unit.conftest import load

from dvc_runner.git import RunnerError
from dvc_runner.need import require_environment
from dvc_runner.settings import settings
from dvc_runner.sources import folder_of, kept_folder_of

from .conftest import repository
from .wheels import wheel

action = load("dvc_runner/action_plugins/dvc_environment.py")


def environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *projects: dict[str, Any]) -> Any:  # noqa: ANN401 - as Ansible has it
    """What the task returns for projects."""
    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    task: Any = object.__new__(action.ActionModule)
    args = {"projects": list(projects), "cache": str(tmp_path / "cache"), "python": "3.13"}
    task._task = SimpleNamespace(args=args)
    return task.run()["environments"]


def test_each_project_has_files_for_its_build_by_their_names_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        repository(tmp_path / name)
    one = {"name": "one", "source": str(tmp_path / "one")}
    two = {"name": "two", "source": str(tmp_path / "two"), "system_packages": ["libgomp1"]}
    found = environments(tmp_path, monkeypatch, one, two)
    assert sorted(found["one"]["files"]) == [
        "build-requirements.txt",
        "environment.json",
        "git-requirements.txt",
        "project-requirements.txt",
        "requirements-lock.txt",
        "system-packages.txt",
    ]
    assert Path(found["two"]["files"]["system-packages.txt"]).read_text() == "libgomp1\n"
    assert found["one"]["digest"] != found["two"]["digest"]
    assert found["one"]["said"].startswith("It names no packages")


def test_a_projects_commit_in_git_is_what_its_environment_is_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = repository(tmp_path / "one", environment__yml="dependencies: [python=3.8]\n")
    (source / "environment.yml").unlink()
    with pytest.raises(AnsibleActionFail, match=r"one: environment.yml asks for Python ==3.8.\*"):
        environments(tmp_path, monkeypatch, {"name": "one", "source": str(source), "ref": "HEAD"})


def test_a_package_beside_a_project_in_a_directory_is_had_with_the_whole_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = repository(tmp_path / "whole")
    wheel(whole / "libs", "common", "1.0")
    (whole / "churn").mkdir()
    (whole / "churn/dvc.yaml").write_text("stages: {}\n")
    line = next((whole / "libs").rglob("*.whl")).relative_to(whole)
    (whole / "churn/requirements.txt").write_text(f"../{line}\n")
    alone = {"name": "one", "source": str(whole), "subdirectory": "churn"}
    with pytest.raises(AnsibleActionFail, match="which lies outside of the project's directory"):
        environments(tmp_path, monkeypatch, alone)
    named = {"name": "one", "source": str(whole), "pipeline": "churn/dvc.yaml"}
    assert environments(tmp_path, monkeypatch, named)["one"]["local"] == [str(line)]


def test_every_project_whose_environment_can_not_be_had_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [
        {"name": name, "source": str(repository(tmp_path / name, Pipfile="[packages]\n"))}
        for name in ("one", "two")
    ]
    with pytest.raises(AnsibleActionFail, match=r"one: Pipfile.*\ntwo: Pipfile"):
        environments(tmp_path, monkeypatch, *made)


def test_a_faulty_file_of_a_project_stops_no_other_once_it_had_an_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(action.Display, "warning", lambda _, words: said.append(words))
    source = repository(tmp_path / "one", requirements__txt="")
    project = {"name": "one", "source": str(source)}
    first = environments(tmp_path, monkeypatch, project)
    assert said == []
    (source / "requirements.txt").write_text("one @ file:///home/me/one\n")
    assert environments(tmp_path, monkeypatch, project) == first
    (warning,) = said
    assert warning.startswith("one keeps its last environment: requirements.txt asks for one at")
    with pytest.raises(AnsibleActionFail, match=r"^other: requirements.txt asks for one at"):
        environments(tmp_path, monkeypatch, {"name": "other", "source": str(source)})


def test_where_a_git_server_is_away_what_was_fetched_last_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = repository(tmp_path / "one", requirements__txt="")
    project = {"name": "one", "source": source.as_uri()}
    first = environments(tmp_path, monkeypatch, project)
    source.rename(tmp_path / "away")
    assert environments(tmp_path, monkeypatch, project) == first
    with pytest.raises(AnsibleActionFail, match=r"^two: "):
        environments(tmp_path, monkeypatch, {"name": "two", "source": f"{source.as_uri()}-2"})


def test_a_commit_of_a_directory_that_is_away_is_looked_at_as_it_was_fetched_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository(tmp_path / "one", requirements__txt="")
    monkeypatch.chdir(tmp_path)
    given = {"source": "one", "ref": "HEAD"}
    brought = folder_of(given, tmp_path / "cache")
    (tmp_path / "one").rename(tmp_path / "away")
    assert kept_folder_of(given, tmp_path / "cache") == brought


@pytest.mark.parametrize(("wanted", "refused"), [("a", False), ("", False), ("b", True)])
def test_a_project_is_not_run_with_packages_that_are_not_its_own_any_more(
    wanted: str, refused: bool, tmp_path: Path
) -> None:
    (tmp_path / "environment.json").write_text('{"digest": "a"}')
    at = settings({"RUNNER_IMAGE": str(tmp_path), "RUNNER_PROJECT": "churn"})
    expected = pytest.raises(RunnerError, match="that churn asks for") if refused else nullcontext()
    with expected:
        require_environment(at, {"environment": wanted})
