"""A host that cannot carry the platform says why in one sentence, and nothing is started on it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
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
    """A checkout of somebody who is not root and has no sudo."""
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
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


def test_make_up_without_root_and_sudo_says_so_before_anything_is_installed(
    unprivileged: Path,
) -> None:
    outcome = as_nobody("make", "up", at=unprivileged, env={"PATH": os.environ["PATH"]})
    assert outcome.code != 0
    outcome.assert_says(f"This needs root: you are uid {NOBODY} and sudo", "Run as root")
    assert not (unprivileged / ".venv").exists()
    # the sentence, and make's own line that names the target
    assert len(outcome.text.strip().splitlines()) == 2


def test_the_playbook_without_root_and_sudo_names_what_is_missing(unprivileged: Path) -> None:
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
    outcome.assert_says(f"This needs root: you are uid {NOBODY} and sudo", "or add -K to be asked.")


@pytest.fixture
def bare_host(small: Platform, tmp_path: Path) -> Iterator[Path]:
    """The inventory of a throw-away Debian host without an engine and without any network."""
    docker(
        *("run", "--detach", "--name", BARE, "--network", "none", image_of("base")),
        *("sleep", "infinity"),
    )
    host = {
        "ansible_connection": "community.docker.docker",
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    groups = {name: {"hosts": {BARE: None}} for name in ("minio", "mlflow", "dvc_runner")}
    inventory = tmp_path / "inventory"
    shutil.copytree(small.checkout / "inventory/local/group_vars", inventory / "group_vars")
    (inventory / "hosts.yml").write_text(
        yaml.safe_dump({"all": {"hosts": {BARE: host}, "children": groups}})
    )
    yield inventory
    docker("rm", "--force", "--volumes", BARE)


def test_a_host_without_a_package_mirror_says_what_apt_says_and_the_ways_out(
    small: Platform, bare_host: Path
) -> None:
    nothing = "deb http://127.0.0.1:9/debian trixie main"
    docker("exec", BARE, "sh", "-c", f"echo '{nothing}' >/etc/apt/sources.list")
    outcome = small.play("-i", str(bare_host), "--limit", BARE)
    assert outcome.code != 0
    outcome.assert_says(
        f"docker.io, docker-cli, iptables, docker-compose cannot be installed on {BARE}, apt says:",
        "Give the host a package mirror (/etc/apt), or install a Docker engine",
    )
    assert "Traceback" not in outcome.text


def test_an_unsupported_system_is_named_with_the_supported_ones(
    small: Platform, bare_host: Path
) -> None:
    release = 'ID=plan9\nVERSION_ID="4"\nPRETTY_NAME="Plan 9 from Bell Labs"\n'
    docker("exec", BARE, "sh", "-c", f"rm /etc/os-release; printf '{release}' >/etc/os-release")
    outcome = small.play("-i", str(bare_host), "--limit", BARE)
    assert outcome.code != 0
    assert outcome.changed == 0
    outcome.assert_says(
        "Plan 9 from Bell Labs (plan9-4) is not supported",
        "this role installs on debian-12, debian-13, ubuntu-24.04",
        "a running engine is used as it is",
    )
