"""A host that cannot carry the platform says why in one sentence, and nothing is started on it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.infra.conftest import BIN
from tests.infra.faults_support import (
    LABEL,
    Outcome,
    Platform,
    assert_refused,
    copy_project,
    docker,
    environment,
    free_ports,
    image_of,
)

NOBODY = 65534
BARE = "mlops-faults-host"
WITHOUT_ROOT = f"This needs root on this machine: you are uid {NOBODY} and sudo wants a password"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A platform that no test here lets come into being."""
    checkout = copy_project(tmp_path_factory.mktemp("host") / "project")
    return Platform(checkout, {"platform_name": "mlops-faults-host", **free_ports()})


def test_a_port_that_a_process_holds_is_named_with_the_process(small: Platform) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = small.play(given={"mlflow_port": str(port)})
    assert_refused(outcome, small)
    holder = Path("/proc/self/comm").read_text().strip()
    outcome.assert_says(
        f"mlflow wants 127.0.0.1:{port}, which {holder} (pid {os.getpid()}) has",
        "stop it, or set another port",
    )


def test_a_port_that_another_platforms_container_holds_is_named_with_the_container(
    small: Platform,
) -> None:
    port = free_ports()["mlflow_port"]
    docker(
        *("run", "--detach", "--name", "mlops-faults-neighbour", "--label", f"{LABEL}=other"),
        *("--publish", f"127.0.0.1:{port}:80", image_of("base"), "sleep", "infinity"),
    )
    try:
        outcome = small.play(given={"mlflow_port": port})
    finally:
        docker("rm", "--force", "--volumes", "mlops-faults-neighbour")
    assert_refused(outcome, small)
    outcome.assert_says(
        f"mlflow wants 127.0.0.1:{port}, which container mlops-faults-neighbour has"
    )


@pytest.mark.parametrize(
    ("limit", "variables"),
    [
        ("platform_memory_minimum", {}),
        ("platform_disk_minimum", {}),
        # a base of another name is one that has to be built
        ("base_image_disk_minimum", {"base_image_prefix": "localhost/mlops-faults"}),
    ],
)
def test_too_little_memory_or_disk_is_told_in_mib_with_what_is_needed(
    small: Platform, limit: str, variables: dict[str, str]
) -> None:
    outcome = small.play(given={limit: 99_999_999, **variables})
    assert_refused(outcome, small)
    seen = "MiB of memory" if "memory" in limit else "MiB free"
    outcome.assert_says(seen, "99999999", f"({limit})")


@pytest.fixture
def unprivileged(tmp_path: Path) -> Path:
    """A checkout of somebody who is not root."""
    for path in (tmp_path, *tmp_path.parents[:3]):  # a worker of several has one more
        path.chmod(path.stat().st_mode | 0o055)
    return copy_project(tmp_path / "project", owner=NOBODY)


def as_nobody(*command: str, at: Path, env: dict[str, str]) -> Outcome:
    """Run a command as a user with no rights."""
    ids = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    done = subprocess.run(
        ["setpriv", *ids, *command],
        cwd=at,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Outcome(done.returncode, done.stdout)


@pytest.fixture
def asking_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sudo that wants a password, whatever this machine has."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sudo").write_text("#!/bin/sh\nexit 1\n")
    for path in (programs, programs / "sudo"):
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")


def of_nobody(checkout: Path, home: Path) -> dict[str, str]:
    """Return the environment of a user with a home, which Ansible looks up where it is not."""
    python = str(BIN / "python")
    if as_nobody("test", "-x", python, at=checkout, env={"PATH": os.environ["PATH"]}).code:
        pytest.skip(f"{python} leads to where only its owner gets at it")
    kept = {**environment(checkout), "HOME": str(home), "USER": "nobody"}
    return {**kept, "ANSIBLE_REMOTE_TMP": str(home / ".ansible/tmp")}


@pytest.mark.usefixtures("asking_sudo")
def test_make_up_without_root_says_so_before_anything_is_installed(
    unprivileged: Path,
) -> None:
    outcome = as_nobody("make", "up", at=unprivileged, env={"PATH": os.environ["PATH"]})
    assert outcome.code != 0
    outcome.assert_says(WITHOUT_ROOT, "ARGS=-K")
    assert not (unprivileged / ".venv").exists()
    # the sentence, and make's own line that names the target
    assert len(outcome.text.strip().splitlines()) == 2


@pytest.mark.usefixtures("asking_sudo")
def test_the_playbook_without_root_names_what_is_missing(unprivileged: Path) -> None:
    home = unprivileged.with_name("home")
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    env = {**environment(unprivileged), "HOME": str(home), "USER": "nobody"}
    platform = Platform(unprivileged, {"platform_name": BARE, **free_ports()})
    outcome = as_nobody(
        *(str(BIN / "ansible-playbook"), "-i", "inventory/local", "site.yml"),
        at=unprivileged,
        env=env,
    )
    assert_refused(outcome, platform)
    outcome.assert_says(WITHOUT_ROOT, "ARGS=-K")


@pytest.mark.parametrize("word", ["INVENTORY=inventory/remote", "ARGS=-K"])
def test_make_asks_for_no_root_where_another_machine_is_changed_or_ansible_will_ask(
    unprivileged: Path, word: str
) -> None:
    env = {"PATH": os.environ["PATH"]}
    outcome = as_nobody("make", "root", word, at=unprivileged, env=env)
    assert (outcome.code, outcome.text) == (0, "")


def test_the_environment_of_a_client_is_the_control_users_and_needs_no_root(
    unprivileged: Path,
) -> None:
    home = unprivileged.with_name("home")
    home.mkdir()
    platform = Platform(unprivileged, {"platform_name": BARE, **free_ports()})
    for path in (home, platform.inventory):
        os.chown(path, NOBODY, NOBODY)
    outcome = as_nobody(
        *(str(BIN / "ansible-playbook"), "-i", str(platform.inventory), "playbooks/env.yml"),
        *("-e", f"dvc_runner_env_file={home}/env", "-e", "ansible_become=false"),
        at=unprivileged,
        env=of_nobody(unprivileged, home),
    )
    assert outcome.code == 0, outcome.text
    written = home / "env"
    secret = platform.secrets / "dvc_runner_s3_secret_key"
    assert {path.stat().st_uid for path in (written, secret)} == {NOBODY}
    for name in ("mlflow_port", "minio_api_port"):
        assert f":{platform.variables[name]}\n" in written.read_text()
    assert secret.read_text().strip() in written.read_text()


def test_a_user_who_may_not_use_docker_here_is_told_so_where_images_are_to_be_built_here(
    unprivileged: Path,
) -> None:
    home = unprivileged.with_name("home")
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "roles": ["base_image"],
        "vars": {
            "base_image_build_on": "control",
            "base_image_builds": {"one": {"context": f"{unprivileged}/roles/mlflow/files/image"}},
            "docker_host": {"images": []},
        },
    }
    (unprivileged / "build.yml").write_text(yaml.safe_dump([play]))
    began = time.monotonic()
    outcome = as_nobody(
        *(str(BIN / "ansible-playbook"), "-i", "inventory/local", "build.yml"),
        at=unprivileged,
        env=of_nobody(unprivileged, home) | {"ANSIBLE_LIBRARY": "roles/docker/library"},
    )
    assert outcome.code != 0
    outcome.assert_says(
        f"base_image_build_on is control, and uid {NOBODY} reaches no Docker engine on this",
        "join the group docker",
    )
    assert time.monotonic() - began < 60, "it is said at once"


@pytest.fixture
def bare_host(small: Platform) -> Iterator[Platform]:
    """The platform's inventory with a throw-away Debian host that has no engine and no network."""
    docker(
        *("run", "--detach", "--name", BARE, "--network", "none", image_of("base")),
        *("sleep", "infinity"),
    )
    host = {
        "ansible_connection": "community.docker.docker",
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    groups = {name: {"hosts": {BARE: None}} for name in ("minio", "mlflow", "dvc_runner")}
    hosts = small.inventory / "hosts.yml"
    before = hosts.read_text()
    hosts.write_text(yaml.safe_dump({"all": {"hosts": {BARE: host}, "children": groups}}))
    yield small
    hosts.write_text(before)
    docker("rm", "--force", "--volumes", BARE)


def test_a_host_without_a_package_mirror_says_what_apt_says_and_the_ways_out(
    bare_host: Platform,
) -> None:
    nothing = "deb http://127.0.0.1:9/debian trixie main"
    docker("exec", BARE, "sh", "-c", f"echo '{nothing}' >/etc/apt/sources.list")
    outcome = bare_host.play()
    assert outcome.code != 0
    outcome.assert_says(
        f"docker.io, docker-cli, iptables, docker-compose cannot be installed on {BARE}, apt says:",
        "Give the host a package mirror (/etc/apt), or install a Docker engine",
    )
    assert "Traceback" not in outcome.text


def test_an_unsupported_system_is_named_with_the_supported_ones(
    bare_host: Platform,
) -> None:
    release = 'ID=plan9\nVERSION_ID="4"\nPRETTY_NAME="Plan 9 from Bell Labs"\n'
    docker("exec", BARE, "sh", "-c", f"rm /etc/os-release; printf '{release}' >/etc/os-release")
    outcome = bare_host.play()
    assert outcome.code != 0
    assert outcome.changed == 0
    outcome.assert_says(
        "Plan 9 from Bell Labs (plan9-4) is not supported",
        "this role installs on debian-12, debian-13, ubuntu-24.04",
        "a running engine is used as it is",
    )
