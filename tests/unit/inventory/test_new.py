"""A further platform has an inventory of its own, and takes nothing that another one has."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from platform_inventory import new

ROOT = Path(__file__).parents[3]


TOY = {"main": {"options": {"toy_web_port": {"type": "str", "default": "127.0.0.1:8080"}}}}


def copy(at: Path) -> Path:
    """Copy the inventories of this project and the roles that they use."""
    for each in ("inventory/local", "roles"):
        ignored = shutil.ignore_patterns(".secrets")
        shutil.copytree(ROOT / each, at / each, symlinks=True, ignore=ignored)
    return at


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one inventory."""
    return copy(tmp_path)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Name and ports of three inventories, as Ansible sees them, after a service was added."""
    at = copy(tmp_path_factory.mktemp("grown"))
    path = at / "roles/toy/meta/argument_specs.yml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump({"argument_specs": TOY}))
    hosts = at / "inventory/local/hosts.yml"
    hosts.write_text(hosts.read_text() + "    toy: {hosts: {localhost: }}\n")
    said = {"staging": new.new("staging", "local", at), "lab": new.new("lab", "staging", at)}
    local = at / "inventory/local/group_vars/all/platform.yml"
    local.write_text(local.read_text() + "platform_start_timeout: 7\n")
    seen = {name: new.listing(path) for name, path in new.known(at).items()}
    found = {name: new.of_hosts(listed) for name, listed in seen.items()}
    assert all(found[name].items() >= own.items() for name, own in said.items())
    kept = ("platform_name", "platform_start_timeout")
    return {
        name: new.ports(seen[name], at) | {each: variables[each] for each in kept}
        for name, variables in found.items()
    }


def ports(seen: dict[str, Any]) -> list[str]:
    """The ports among what was seen of an inventory."""
    return [value for name, value in seen.items() if name.endswith("_port")]


def test_a_new_platform_has_a_name_of_its_own_and_follows_the_other_in_all_else(
    grown: dict[str, dict[str, Any]],
) -> None:
    names = {inventory: seen["platform_name"] for inventory, seen in grown.items()}
    assert names == {"lab": "lab", "local": "mlops", "staging": "staging"}
    assert {seen["platform_start_timeout"] for seen in grown.values()} == {7}


def test_no_two_inventories_share_a_port_also_where_one_came_from_the_other(
    grown: dict[str, dict[str, Any]],
) -> None:
    every = [port for seen in grown.values() for port in ports(seen)]
    assert len(every) == len(set(every)) == 3 * len(ports(grown["local"]))


def test_a_service_added_later_gets_a_port_with_no_other_change(
    grown: dict[str, dict[str, Any]],
) -> None:
    moved = grown["staging"]["toy_web_port"]
    assert moved.startswith("127.0.0.1:")
    assert moved != grown["local"]["toy_web_port"] == "127.0.0.1:8080"


@pytest.mark.parametrize("name", ["", "Staging", "1st", "a_b", "../x", "x" * 41, "a;b"])
def test_what_is_no_name_is_refused_and_nothing_is_written(name: str, project: Path) -> None:
    with pytest.raises(ValueError, match="is no name for a platform: take a small letter"):
        new.new(name, "local", project)
    assert list(new.known(project)) == ["local"]


@pytest.mark.parametrize("name", ["local", "mlops"])
def test_the_name_of_another_inventory_or_of_its_platform_is_refused(
    name: str, project: Path
) -> None:
    with pytest.raises(ValueError, match=f"NAME={name} is taken by inventory/local"):
        new.new(name, "local", project)
    assert list(new.known(project)) == ["local"]


def test_an_inventory_that_is_not_there_is_named_with_those_that_are(project: Path) -> None:
    with pytest.raises(ValueError, match="FROM=nowhere is no inventory: local are there"):
        new.new("staging", "nowhere", project)


def test_a_name_that_this_machine_uses_already_is_refused(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = tmp_path / "bin/docker"
    docker.parent.mkdir()
    docker.write_text('#!/bin/sh\ncase "$*" in volume*project=staging) echo kept ;; esac\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(docker.parent), prepend=":")
    with pytest.raises(ValueError, match="on this machine, by a volume of project staging"):
        new.new("staging", "local", project)
    assert new.remains("other") == ""


OLD = f"""{new.OURS}
name: staging
services:
  minio: {{ports: ['127.0.0.1:9107:9000', '0.0.0.0:9101:9001']}}
  dvc-runner: {{image: a}}
"""


@pytest.fixture
def projects(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where platforms are on this machine, with one that was made with PLATFORM=staging."""
    monkeypatch.setattr(new, "PROJECTS", project / "opt")
    (project / "opt/staging").mkdir(parents=True)
    (project / "opt/staging/compose.yaml").write_text(OLD)
    secret = project / "inventory/local/.secrets/staging/minio_root_user"
    secret.parent.mkdir(parents=True)
    secret.write_text("ABC\n")
    return project / "opt"


def test_a_platform_without_an_inventory_is_taken_over_with_its_ports_and_secrets(
    projects: Path, project: Path
) -> None:
    assert (projects / "staging").is_dir()
    own = new.new("staging", "local", project)
    assert own.pop("mlflow_port") not in {"5000", None}
    assert own == {
        "platform_name": "staging",
        "minio_api_port": "127.0.0.1:9107",
        "minio_console_port": "0.0.0.0:9101",
    }
    secret = project / "inventory/staging/.secrets/staging/minio_root_user"
    assert secret.read_text() == "ABC\n"
    assert not (project / "inventory/local/.secrets/staging").exists()


def test_a_project_of_somebody_else_is_not_taken_over(projects: Path, project: Path) -> None:
    (projects / "staging/compose.yaml").write_text("name: staging\nservices: {}\n")
    with pytest.raises(ValueError, match=f"on this machine, by {projects}/staging"):
        new.new("staging", "local", project)
    assert list(new.known(project)) == ["local"]
    assert (project / "inventory/local/.secrets/staging/minio_root_user").is_file()


def test_a_project_that_cannot_be_read_is_left_with_the_way_to_take_it_over(
    projects: Path, project: Path
) -> None:
    (projects / "staging/compose.yaml").unlink()
    (projects / "staging/compose.yaml").mkdir()  # root reads every file, and no directory
    with pytest.raises(ValueError, match="`sudo make new NAME=staging`"):
        new.new("staging", "local", project)
    assert list(new.known(project)) == ["local"]


def test_volumes_that_were_kept_without_an_inventory_are_taken_over(
    projects: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(projects / "staging")
    docker = projects.parent / "bin/docker"
    docker.parent.mkdir()
    docker.write_text('#!/bin/sh\ncase "$*" in volume*=staging) echo kept ;; esac\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(docker.parent), prepend=":")
    new.new("staging", "local", project)
    assert (project / "inventory/staging/.secrets/staging/minio_root_user").is_file()


def test_a_port_set_for_a_host_would_win_and_is_refused_by_name(project: Path) -> None:
    for_host = project / "inventory/local/host_vars/localhost.yml"
    for_host.parent.mkdir()
    for_host.write_text("mlflow_port: 5055\n")
    with pytest.raises(ValueError, match="mlflow_port is set for a host or a group, which wins"):
        new.new("staging", "local", project)
    assert list(new.known(project)) == ["local"]


def test_ports_that_something_listens_on_or_that_are_too_high_are_passed_over() -> None:
    wanted = {"a_port": "9000", "b_port": "127.0.0.1:5000", "c_port": "", "d_port": "{{ x }}"}
    found = new.moved(wanted, {9100}, lambda port: port != 5200)
    assert found == {"a_port": "9300", "b_port": "127.0.0.1:5300"}
    with pytest.raises(LookupError, match="No ports are free"):
        new.moved({"a_port": "9000"}, set(), lambda _: False)


def test_a_port_that_is_listened_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not new.free_here(port)
    assert new.free_here(port)


@pytest.mark.parametrize("target", ["up", "verify", "destroy", "env", "status"])
def test_a_misspelt_system_is_refused_with_the_known_ones_and_nothing_is_made(
    target: str, project: Path
) -> None:
    shutil.copyfile(ROOT / "Makefile", project / "Makefile")
    words = ["make", "-C", str(project), target, "SYSTEM=locla"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "inventory/locla is no inventory: SYSTEM is one of local, and" in done.stderr
    assert sorted(path.name for path in project.iterdir()) == ["Makefile", "inventory", "roles"]


@pytest.mark.parametrize("target", ["up", "destroy"])
@pytest.mark.parametrize("shell", [False, True], ids=["typed", "shell"])
def test_what_picked_a_platform_once_is_refused_before_another_one_is_touched(
    target: str, shell: bool, projects: Path, project: Path
) -> None:
    assert projects.is_dir()
    shutil.copyfile(ROOT / "Makefile", project / "Makefile")
    words = ["make", "-C", str(project), target]
    picked = {"PLATFORM": "staging"}
    done = subprocess.run(
        words if shell else [*words, "PLATFORM=staging"],
        env={**os.environ, **(picked if shell else {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "PLATFORM=staging is gone, one inventory is one platform" in done.stderr
    assert "make new NAME=staging" in done.stderr
    assert not (project / ".venv").exists()


def test_a_shells_own_word_platform_is_nobodys_business(project: Path) -> None:
    shutil.copyfile(ROOT / "Makefile", project / "Makefile")
    environment = {**os.environ, "PLATFORM": "linux/amd64"}
    words = ["make", "-C", str(project), "help"]
    assert subprocess.run(words, env=environment, capture_output=True, check=False).returncode == 0
