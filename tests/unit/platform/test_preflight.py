"""What is refused of an inventory and a command line before any host is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.conftest import ROLES, load

placement = load("platform/filter_plugins/placement.py")


@pytest.fixture
def roles(tmp_path: Path) -> Path:
    """Two roles that declare a container, the second of which provisions, and one that does not."""
    for name, tasks in (
        ("web", "- import_role:\n    name: container_service\n"),
        ("db", "- import_role:\n    name: container_service\n"),
        ("engine", "- debug:\n"),
    ):
        (tmp_path / name / "tasks").mkdir(parents=True)
        (tmp_path / name / "tasks" / "main.yml").write_text(tasks)
    (tmp_path / "db" / "tasks" / "provision.yml").write_text("---\n")
    return tmp_path


def test_a_group_is_a_service_when_a_role_of_its_name_declares_a_container(roles: Path) -> None:
    groups = ["all", "db", "engine", "europe", "web"]
    assert placement.service_roles(groups, str(roles)) == ["db", "web"]
    assert set(placement.service_roles(["minio", "platform", "docker"], str(ROLES))) == {"minio"}


def test_only_roles_that_can_provision_are_asked_to_and_each_once(roles: Path) -> None:
    declared = {
        "db": {"role": "db", "stage": "data"},
        "db-replica": {"role": "db", "stage": "data"},
        "web": {"role": "web"},
    }
    assert placement.provisioning(declared, "data", str(roles)) == ["db"]
    assert placement.provisioning(declared, "app", str(roles)) == []


def test_a_role_provisions_once_whatever_the_stages_of_its_containers(roles: Path) -> None:
    (roles / "web" / "tasks" / "provision.yml").write_text("---\n")
    declared = {
        "db": {"role": "db", "stage": "data"},
        "db-page": {"role": "db", "stage": "app"},
        "web-migrate": {"role": "web", "stage": "job"},
    }
    assert placement.provisioning(declared, "data", str(roles)) == ["db"]
    assert placement.provisioning(declared, "app", str(roles)) == ["web"]


@pytest.mark.parametrize(
    "groups",
    [
        {"db": ["a"], "web": ["b"]},
        {"db": ["a", "b"], "web": ["a"]},
        {"db": ["a", "b"]},
    ],
    ids=str,
)
def test_services_on_several_hosts_are_refused_with_who_is_where(
    groups: dict[str, list[str]], roles: Path
) -> None:
    (said,) = placement.several_hosts({"all": ["a", "b"], **groups}, str(roles))
    assert f"db on {', '.join(groups['db'])}" in said
    assert "make new NAME=" in said


def test_other_hosts_of_an_inventory_are_nobodys_business(roles: Path) -> None:
    groups = {"all": ["a", "b"], "db": ["a"], "web": ["a"], "laptops": ["b"]}
    assert placement.several_hosts(groups, str(roles)) == []


@pytest.mark.parametrize(
    ("group", "meant"),
    [
        ("mlfow", "mlflow"),
        ("MLflow", "mlflow"),
        ("jupiter", "jupyter"),
        ("dvcrunner", "dvc_runner"),
        ("postgres", "postgresql"),
        ("gateways", "gateway"),
        ("mino", "minio"),
    ],
)
def test_a_group_that_is_almost_called_as_a_component_is_refused_with_both_names(
    group: str, meant: str
) -> None:
    (said,) = placement.misspelt_groups({"all": ["a"], "airflow": ["a"], group: ["a"]}, str(ROLES))
    assert f"The group {group} of the inventory (a) is no component (did you mean {meant}?)" in said
    assert placement.misspelt_groups({"all": ["a"], group: []}, str(ROLES)) == []


@pytest.mark.parametrize(
    "group", ["gpu", "servers", "runners", "mlops", "docker", "databases", "ungrouped", "lab"]
)
def test_a_group_of_a_users_own_is_nobodys_business(group: str) -> None:
    groups = {"all": ["a"], "mlflow": ["a"], group: ["a"]}
    assert placement.misspelt_groups(groups, str(ROLES)) == []


def test_a_group_whose_hosts_have_the_component_anyway_is_taken() -> None:
    groups = {"mlflow": ["a", "b"], "mlflow2": ["b"]}
    assert placement.misspelt_groups(groups, str(ROLES)) == []
    assert placement.misspelt_groups({**groups, "mlflow2": ["b", "c"]}, str(ROLES))


@pytest.mark.parametrize("tag", ["mlflow", "minio", "containers"])
def test_a_tag_that_would_apply_nothing_is_refused_with_those_that_do(tag: str) -> None:
    (said,) = placement.unknown_tags([tag], [], str(ROLES))
    assert f"There is no tag {tag!r} to run alone" in said
    assert "docker, platform, pipeline, verify" in said


@pytest.mark.parametrize("tag", ["mlflow", "dvc-runner", "platform", "docker", "always"])
def test_a_tag_without_which_a_service_would_be_dropped_cannot_be_skipped(tag: str) -> None:
    (said,) = placement.unknown_tags(["all"], [tag], str(ROLES))
    assert f"The tag {tag!r} cannot be skipped" in said


def test_tags_that_do_what_they_say_are_taken() -> None:
    assert placement.unknown_tags(["all"], ["pipeline", "verify"], str(ROLES)) == []
    assert placement.unknown_tags(["docker"], [], str(ROLES)) == []
    assert placement.unknown_tags(["all"], ["molecule-notest", "notest"], str(ROLES)) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--tags", "minio"], "tags are given (minio): leave --tags and --skip-tags out."),
        (["--skip-tags", "destroy"], "tags are given (destroy): leave"),
        (["-e", "platform_name=typo"], "SYSTEM=typo picks it, once `make new NAME=typo` wrote it"),
        (["-e", "minio_users={{ nothing }}"], "say `make destroy CONFIRM=yes`"),
        (["--tags", "destroy"], "say `make destroy CONFIRM=yes`"),
    ],
    ids=str,
)
def test_a_removal_is_refused_for_how_it_was_asked_and_never_for_what_a_service_is(
    words: list[str], says: str
) -> None:
    reached = ("-c", "local", "-e", "platform_destroy_confirmed=false")
    assert says in refused("somewhere,", *reached, *words, playbook="playbooks/destroy.yml")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ('{"gateway_names": []}', "gateway_names is empty: give one entry or more"),
        ('{"gateway_names": null}', "gateway_names is empty: give one entry or more"),
        ('{"dvc_runner_projects": null}', "dvc_runner_projects is empty: give {...}, or leave"),
        ('{"gateway_http_port": "x"}', "gateway_http_port is 'x': give a port of the host"),
        ('{"gateway_memory": ""}', "gateway_memory is '': give a limit"),
        ("dvc_runner_keep=-1", "dvc_runner_keep is '-1': give a whole number, 0 or more"),
        (
            '{"gateway_users": [{"name": "a", "group": ["x"]}]}',
            "gateway_users has a key 'group' that means nothing (did you mean groups?)",
        ),
        ('{"gateway_nams": []}', "did you mean gateway_names?"),
        ('{"minio_users": "{{ nothing }}"}', "'nothing' is undefined"),
    ],
)
def test_a_run_that_is_refused_names_the_variable_and_makes_no_secret(
    given: str, says: str, inventory: Path
) -> None:
    assert says in refused(inventory, "-e", given)
    assert not (inventory / ".secrets").exists()


@pytest.mark.parametrize("playbook", ["playbooks/declare.yml", "playbooks/destroy.yml"])
@pytest.mark.parametrize("name", ["../x", "", "Übel", "my platform", "-a", ["a"]], ids=str)
def test_a_name_that_no_directory_may_have_is_refused_and_nothing_is_written(
    name: object, playbook: str, inventory: Path
) -> None:
    (inventory / "group_vars/all/zz.yml").write_text(json.dumps({"platform_name": name}))
    before = set(inventory.rglob("*"))
    unsure = ("-e", "platform_destroy_confirmed=false")
    assert f"platform_name is {name!r}: give small" in refused(
        inventory, *unsure, playbook=playbook
    )
    assert set(inventory.rglob("*")) == before


def test_a_misspelt_group_is_refused_before_its_service_is_removed(inventory: Path) -> None:
    hosts = inventory / "hosts.yml"
    hosts.write_text(hosts.read_text().replace(" mlflow:", " mlfow:"))
    assert "did you mean mlflow?" in refused(inventory)
    assert not (inventory / ".secrets").exists()


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """The inventory of a system, without secrets."""
    at = tmp_path / "inventory/fraud"
    shutil.copytree(ROLES.parent / "inventory/fraud", at, symlinks=False)
    shutil.rmtree(at / ".secrets", ignore_errors=True)
    return at


def refused(inventory: Path | str, *words: str, playbook: str = "playbooks/declare.yml") -> str:
    """What a run says that is refused; the default reaches no host even where it is not."""
    done = subprocess.run(
        [
            Path(sys.executable).parent / "ansible-playbook",
            *("-i", str(inventory), "-e", "ansible_become=false", playbook, *words),
        ],
        cwd=ROLES.parent,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROLES.parent / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    return " ".join((done.stdout + done.stderr).split())
