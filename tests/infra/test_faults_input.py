"""A wrong word in the inventory or after -e ends in one sentence, before anything is touched."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.infra.faults_support import Platform, assert_refused, copy_project, free_ports


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A platform that no test here lets come into being."""
    checkout = copy_project(tmp_path_factory.mktemp("input") / "project")
    return Platform(checkout, {"platform_name": "mlops-faults-input", **free_ports()})


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("mlflow_prot", "did you mean mlflow_port?"),
        ("minio_zzzzzzzzzzzzzzzzzz", "see docs/roles"),
    ],
)
def test_a_misspelt_variable_is_named_with_what_it_may_have_meant(
    nowhere: Platform, wrong: str, meant: str
) -> None:
    outcome = nowhere.play(given={wrong: 1})
    assert_refused(outcome, nowhere)
    outcome.assert_says(f"{wrong} is no variable of any role ({meant})")


def test_a_platform_named_on_the_command_line_is_refused_with_the_way_to_a_further_one(
    nowhere: Platform,
) -> None:
    outcome = nowhere.play(given={"platform_name": "mlops-faults-other"})
    assert_refused(outcome, nowhere)
    outcome.assert_says("one inventory is one platform", "make new NAME=mlops-faults-other")


def test_a_variable_of_the_user_with_another_prefix_is_nobodys_business(nowhere: Platform) -> None:
    outcome = nowhere.play("--tags", "always", given={"my_own_variable": 1})
    assert outcome.code == 0, outcome.text


def test_a_wrongly_typed_variable_is_named_with_the_value_and_the_type(nowhere: Platform) -> None:
    outcome = nowhere.play(given={"mlflow_workers": "two"})
    assert_refused(outcome, nowhere)
    outcome.assert_says("mlflow_workers is 'two': give a whole number, 0 or more.")


def test_a_password_that_is_too_short_is_refused_and_not_printed(nowhere: Platform) -> None:
    outcome = nowhere.play(env={"MINIO_ROOT_PASSWORD": "Sh0rtSecret"})
    assert_refused(outcome, nowhere)
    outcome.assert_says(
        "minio_root_password has 11 characters and 12 are the least: set a longer one"
    )
    assert "Sh0rtSecret" not in outcome.text


def test_a_user_key_that_is_too_short_is_refused_and_not_printed(nowhere: Platform) -> None:
    outcome = nowhere.play(given={"mlflow_s3_secret_key": "Sh0rtSecret"})
    assert_refused(outcome, nowhere)
    outcome.assert_says("secret_key of mlflow has 11 characters and 12 are the least")
    assert "Sh0rtSecret" not in outcome.text


@pytest.mark.parametrize("name", ["MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"])
def test_a_root_credential_that_minio_would_read_as_an_address_is_refused(
    nowhere: Platform, name: str
) -> None:
    outcome = nowhere.play(env={name: "env0123456789abc"})
    assert_refused(outcome, nowhere)
    outcome.assert_says('begins with "env", which MinIO reads as an address')
    assert "env0123456789abc" not in outcome.text


@pytest.mark.parametrize("port", ["70000", "five"])
def test_a_port_that_is_none_is_named_with_what_is_expected(nowhere: Platform, port: str) -> None:
    outcome = nowhere.play(given={"mlflow_port": port})
    assert_refused(outcome, nowhere)
    outcome.assert_says(f"mlflow_port is '{port}': give a port of the host, 'port' or")


def test_two_services_on_one_port_are_both_named(nowhere: Platform) -> None:
    outcome = nowhere.play(given={"mlflow_port": 9321, "minio_api_port": 9321})
    assert_refused(outcome, nowhere)
    outcome.assert_says("mlflow wants 127.0.0.1:9321, which minio wants too")


def test_a_host_that_no_service_runs_on_is_named(nowhere: Platform) -> None:
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    outcome = nowhere.play("-i", "stray,", "--limit", "stray", given=here)
    assert_refused(outcome, nowhere)
    outcome.assert_says("stray is in no group of a service: put it in one, or take it out")


def test_a_lock_file_that_is_not_there_is_named(nowhere: Platform, tmp_path: Path) -> None:
    entry = {"source": str(tmp_path), "requirements": f"{tmp_path}/requirements.txt"}
    outcome = nowhere.play(given={"dvc_runner_projects": {"churn": entry}})
    assert_refused(outcome, nowhere)
    outcome.assert_says(f"churn: requirements requirements.txt is no file of {tmp_path}")


def test_a_data_file_that_is_not_there_is_named(nowhere: Platform, tmp_path: Path) -> None:
    wrong = {"dvc_runner_data": f"{tmp_path}/wine.csv"}
    outcome = nowhere.play(playbook="playbooks/pipeline.yml", given=wrong)
    assert_refused(outcome, nowhere)
    outcome.assert_says(
        f"dvc_runner_data {tmp_path}/wine.csv is not a file on the machine that runs Ansible",
        "name one that is, a URL, or a source that the project knows",
    )


def test_a_project_that_is_nowhere_is_named_before_anything_is_built(nowhere: Platform) -> None:
    outcome = nowhere.play(given={"dvc_runner_project": "chrun"})
    assert_refused(outcome, nowhere)
    outcome.assert_says("dvc_runner_project chrun is no name in dvc_runner_projects (it has wine)")


def test_a_project_without_a_pipeline_is_named(nowhere: Platform, tmp_path: Path) -> None:
    wrong = {"dvc_runner_project": str(tmp_path)}
    outcome = nowhere.play(playbook="playbooks/pipeline.yml", given=wrong)
    assert_refused(outcome, nowhere)
    outcome.assert_says(f"dvc_runner_project {tmp_path} has no dvc.yaml: name the directory of")
