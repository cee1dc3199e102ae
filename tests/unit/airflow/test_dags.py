"""What comes of the inventory's DAGs, and of its settings."""

from __future__ import annotations

import configparser
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from tests.unit import as_ansible

MODULE = runpy.run_path(str(as_ansible.ROLES / "airflow/filter_plugins/airflow_dags.py"))
FILTERS = MODULE["FilterModule"]().filters()
ROOT = Path(__file__).parents[3]


def listed(dags: object, projects: object) -> dict[str, Any]:
    found: dict[str, Any] = FILTERS["airflow_dags_listed"](dags, projects)
    return found


def stages(tmp_path: Path, said: object) -> dict[str, list[str]]:
    path = tmp_path / "dvc.yaml"
    path.write_text(yaml.safe_dump(said))
    found: dict[str, list[str]] = listed({"d": {"project": "p", "stages_of": str(path)}}, {})["d"][
        "stages"
    ]
    return found


def test_the_wine_pipelines_stages_come_in_the_order_of_their_graph() -> None:
    entry = {"project": "wine", "stages_of": str(ROOT / "dvc.yaml")}
    found = listed({"wine_training": entry}, {"wine": {}})["wine_training"]["stages"]
    assert found == {
        "data_ingestion": [],
        "data_validation": ["data_ingestion"],
        "data_transformation": ["data_ingestion", "data_validation"],
        "model_trainer": ["data_transformation"],
        "model_evaluation": ["data_ingestion", "data_transformation", "model_trainer"],
    }


def test_directories_templates_and_working_directories_are_met(tmp_path: Path) -> None:
    said = {
        "stages": {
            "each": {"foreach": ["a"], "do": {"cmd": "x", "outs": ["each/${item}.txt"]}},
            "below": {
                "cmd": "x",
                "wdir": "code",
                "deps": ["../each"],
                "outs": [{"o": {"cache": False}}],
            },
            "cross": {"matrix": {"item": ["a"]}, "cmd": "x", "deps": ["each/${item}.txt"]},
            "plot": {"cmd": "x", "deps": ["code/o"], "plots": [{"loss.csv": {"x": "e"}}]},
            "last": {"cmd": "x", "deps": ["loss.csv"], "metrics": ["m.json"]},
            "apart": {"cmd": "x"},
        }
    }
    found = stages(tmp_path, said)
    assert found["below"] == found["cross"] == ["each"]
    assert found["plot"] == ["below"]
    assert found["last"] == ["plot"]
    assert found["apart"] == []


def test_a_project_with_a_schedule_is_a_dag_and_nothing_else_of_it_is_told() -> None:
    projects = {
        "churn": {"source": "/srv", "schedule": "@daily", "token": "secret-of-churn"},
        "iris": {"source": "/srv"},
        "bare": None,
    }
    found = listed({"x": {"project": "iris"}}, projects)
    assert set(found) == {"x", "churn"}
    assert found["churn"]["schedule"] == "@daily"
    assert found["x"]["schedule"] == ""
    assert "secret-of-churn" not in str(found)


@pytest.mark.parametrize(
    ("dags", "said"),
    [
        ({"a b": {"project": "p"}}, "airflow_dags.a b is no name for a DAG"),
        ({"a": None}, "airflow_dags.a has no project: name the one that is run."),
        ({"a": {}}, "airflow_dags.a has no project: name the one that is run."),
        ({"a": {"project": "q"}}, "project is q, and there is no such project (there are p)"),
        ({"a": {"project": "p", "stage": "x"}}, "airflow_dags.a has stage, which means nothing"),
        ({"a": {"project": "p", "schedule": "daily"}}, "schedule is 'daily': write a cron"),
        ({"p": {"project": "p"}}, "airflow_dags.p and the schedule of project p would be one DAG"),
        (
            {"a": {"project": "p", "stages_of": "/none"}},
            "stages_of names /none, and no stages",
        ),
    ],
)
def test_an_entry_that_can_not_be_is_refused_in_one_sentence(dags: object, said: str) -> None:
    with pytest.raises(AnsibleFilterError) as refused:
        listed(dags, {"p": {"schedule": "@daily"}})
    assert said in str(refused.value)


@pytest.mark.parametrize("stage", ["make data", "push_and_record"])
def test_a_stage_that_cannot_be_a_task_is_refused(stage: str, tmp_path: Path) -> None:
    with pytest.raises(AnsibleFilterError, match=f"whose stage '{stage}' cannot be a task"):
        stages(tmp_path, {"stages": {stage: {"cmd": "x"}}})


@pytest.mark.parametrize("said", [[], {"stages": []}, {}, {"stages": {"a": "x"}}])
def test_a_file_without_stages_is_refused(said: object, tmp_path: Path) -> None:
    with pytest.raises(AnsibleFilterError, match="no stages are found there"):
        stages(tmp_path, said)


def test_settings_are_read_as_they_were_said_per_cent_signs_too() -> None:
    text = FILTERS["airflow_ini"]({"core": {"a": "50%", "gone": None, "on": True}, "api": {}})
    read = configparser.ConfigParser()
    read.read_string(text)
    assert dict(read["core"]) == {"a": "50%", "on": "True"}
    assert read.has_section("api")
