"""A run in a shell and on a host as people have them ends as one in a clean shell does.

One platform goes through it all: some four minutes beside other work.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.infra.conftest import ASKED, BIN, data
from tests.infra.faults_support import Outcome, Platform, copy_project, docker, free_ports

DEAD = "http://127.0.0.1:9"
PROXIES = {name: DEAD for each in ("HTTP_PROXY", "HTTPS_PROXY") for name in (each, each.lower())}
# what an inventory does not have to say, as text after -e
AS_TEXT = {
    "docker_start_timeout": "60",
    "dvc_runner_force": "false",
    "mlflow_workers": "1",
    "platform_disk_minimum": "900",
    "platform_keep_data": "no",
    "platform_memory_minimum": "1000",
    "platform_start_timeout": "600",
}
ENGINES = {
    "COMPOSE_FILE": "/none.yaml",
    "COMPOSE_PROFILES": "none",
    "COMPOSE_PROJECT_NAME": "other",
    "DOCKER_CERT_PATH": "/none",
    "DOCKER_CONTENT_TRUST": "1",
    "DOCKER_CONTEXT": "other",
    "DOCKER_DEFAULT_PLATFORM": "linux/s390x",
    "DOCKER_HOST": "tcp://127.0.0.1:9",
    "DOCKER_TLS_VERIFY": "1",
}
OTHERS = {
    "ANSIBLE_COLLECTIONS_PATH": "/none",
    "ANSIBLE_ROLES_PATH": "/none",
    "ANSIBLE_STRATEGY": "none",
    "CDPATH": "/",
    "GIT_DIR": "/none",
    "GREP_OPTIONS": "--color=always",
    "LANG": "C",
    "LC_ALL": "sv_SE.UTF-8",
    "MAKEFLAGS": "-j4",
    "PYTEST_ADDOPTS": "--none",
    "VIRTUAL_ENV": "/none",
}


@pytest.fixture(scope="module")
def shells(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform of a checkout that was cloned under umask 077."""
    place = tmp_path_factory.mktemp("shells")
    checkout = copy_project(place / "project")
    for path in (checkout, *checkout.rglob("*")):
        path.chmod(path.stat().st_mode & 0o700)
    (checkout / ".venv").symlink_to(BIN.parent)
    home = place / "home"
    modules = home / ".ansible/collections/ansible_collections/community/docker/plugins/modules"
    modules.mkdir(parents=True)
    (modules / "docker_compose_v2.py").write_text("raise SystemExit('an old one')\n")
    (home / ".docker").mkdir()
    proxies = {"httpProxy": DEAD, "httpsProxy": DEAD, "noProxy": "example.org"}
    (home / ".docker/config.json").write_text(
        json.dumps({"currentContext": "other", "proxies": {"default": proxies}})
    )
    (home / "python").mkdir()
    (home / "python/yaml.py").write_text("raise SystemExit('of another project')\n")
    if Path(data()).is_file():
        shutil.copy(data(), place / 'wine (1) it\'s [x] $HOME "q".csv')
    platform = Platform(checkout, {"platform_name": "mlops-shells", **free_ports()})
    try:
        yield platform
    finally:
        platform.close()


def make_up(platform: Platform) -> Outcome:
    """Run `make up` in that home and with that umask, the data named from the checkout."""
    place = platform.checkout.parent
    home = place / "home"
    names = [f"../{path.name}" for path in place.glob("*.csv")] or ["synthetic"]
    done = subprocess.run(
        [
            *("make", "--assume-old=.venv/run", "--assume-old=.venv/bin/uv", "up"),
            *(f"INVENTORY={platform.inventory}", f"DATA={names[0]}"),
            "ARGS=" + " ".join(f"-e {name}={value}" for name, value in AS_TEXT.items()),
        ],
        cwd=platform.checkout,
        env={
            **{key: value for key, value in os.environ.items() if key not in ASKED},
            **PROXIES,
            **ENGINES,
            **OTHERS,
            "HOME": str(home),
            "PYTHONPATH": str(home / "python"),
        },
        umask=0o077,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Outcome(done.returncode, done.stdout)


def test_make_up_ends_well_in_an_odd_shell_and_again_changes_nothing(shells: Platform) -> None:
    outcome = make_up(shells)
    assert outcome.code == 0, outcome.text
    outcome = make_up(shells)
    assert (outcome.code, outcome.changed) == (0, 0), outcome.text


def test_containers_have_the_proxy_for_what_is_outside_and_none_for_each_other(
    shells: Platform,
) -> None:
    form = "{{range .Config.Env}}{{println .}}{{end}}"
    words = docker("inspect", "--format", form, shells.container("dvc-runner-wine")).splitlines()
    seen = dict(word.split("=", 1) for word in words)
    assert seen["HTTPS_PROXY"] == DEAD
    for name in ("NO_PROXY", "no_proxy"):
        assert {"example.org", "127.0.0.1", "minio", shells.container("mlflow")} <= {
            *seen[name].split(",")
        }


def test_a_playbook_without_make_talks_to_the_same_engine_and_changes_nothing(
    shells: Platform,
) -> None:
    home = {"HOME": str(shells.checkout.parent / "home")}
    words = [word for name, value in AS_TEXT.items() for word in ("-e", f"{name}={value}")]
    outcome = shells.play(*words, env={**ENGINES, **PROXIES, **home})
    assert (outcome.code, outcome.changed) == (0, 0), outcome.text
