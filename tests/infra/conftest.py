"""A platform of the tests' own, beside whatever else runs on this machine."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from platform_inventory import new
from platform_verify import report

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SHARED_DATA = ROOT.parent / "shared" / "data" / "winequality-red.csv"
# files that share one platform; each other has platforms of its own, so that two can run at once
SHARING = {
    "test_clients": "core",
    "test_playbooks": "core",
    "test_projects": "core",
    "test_verdict": "core",
    "test_gateway": "gated",
    "test_pages": "gated",
}
ADMIN = "{{ lookup('platform_secret', 'admin_password') }}"
GUEST = "{{ lookup('platform_secret', 'guest_password') }}"
# what would answer for the user
ASKED = ("CONFIRM", "KEEP_DATA", "IMAGES", "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD")


@dataclass(frozen=True)
class Stack:
    """A platform by its inventory, and the verbs a user has for it."""

    name: str
    variables: Mapping[str, Any]
    directory: Path
    inventory: str

    @property
    def verdict_path(self) -> Path:
        """Where its verdict goes: not where that of the user's platform is."""
        return self.directory / f"{self.name}-verdict.json"

    def container(self, service: str) -> str:
        """Name of a service's container."""
        return f"{self.name}-{service}"

    def play(self, playbook: str, *words: str, **variables: object) -> str:
        """Run a playbook, as a user would, and return what it prints; fails where it does."""
        done = self._run(playbook, *words, **variables)
        assert done.returncode == 0, f"{playbook}: {done.stdout[-4000:]}{done.stderr[-2000:]}"
        return done.stdout

    def attempt(self, playbook: str, *words: str, **variables: object) -> str:
        """Run a playbook, however it ends, and return what it prints."""
        done = self._run(playbook, *words, **variables)
        return done.stdout + done.stderr

    def _run(
        self, playbook: str, *words: str, **variables: object
    ) -> subprocess.CompletedProcess[str]:
        given = json.dumps({"verify_report": str(self.verdict_path), **variables})
        return run("ansible-playbook", playbook, "-i", self.inventory, "-e", given, *words)

    def verify(self, *words: str) -> tuple[int, report.Report, str]:
        """Ask for the verdict; exit code, report, and what a person reads."""
        given = ["-i", self.inventory, "-e", f"verify_report={self.verdict_path}"]
        done = run(sys.executable, "-m", "platform_verify", *given, *words)
        found = report.read(self.verdict_path)
        assert found is not None, done.stdout + done.stderr
        return done.returncode, found, done.stdout

    def destroy(self) -> None:
        """Remove it with its data."""
        self.play("playbooks/destroy.yml", platform_destroy_confirmed=True)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command at the root of the project, its environment's programs first in PATH."""
    env = {key: value for key, value in os.environ.items() if key not in ASKED}
    path = f"{BIN}{os.pathsep}{env.get('PATH', os.defpath)}"
    return subprocess.run(
        words,
        cwd=ROOT,
        env={**env, "PATH": path, "PYTHONPATH": str(ROOT / "src")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def data() -> str:
    """Name the data: what the environment says, else a file that is at hand, else the sample."""
    return os.environ.get("DATA") or (str(SHARED_DATA) if SHARED_DATA.is_file() else "synthetic")


def stack(name: str, first_port: int, directory: Path, of: str = "local", **own: object) -> Stack:
    """Name a platform with the API and console of MinIO on two ports, MLflow 4000 below them.

    `of` is the inventory that it is one more of, `own` its further variables.
    """
    variables = {
        "minio_api_port": str(first_port),
        "minio_console_port": str(first_port + 1),
        "mlflow_port": str(first_port - 4000),
        "dvc_runner_data": data() if of == "local" else "",
        **own,
    }
    return written(name, variables, directory, of)


def gated_stack(name: str, port: int, directory: Path, of: str, **own: object) -> Stack:
    """Name a platform behind a gateway, at a port and for plain HTTP 37 above it."""
    ports = {"gateway_port": str(port), "gateway_http_port": str(port + 37)}
    return written(name, {**ports, **own}, directory, of)


def written(name: str, variables: Mapping[str, Any], directory: Path, of: str) -> Stack:
    """Write the inventory of a platform that is one more of another's."""
    inventory = directory / "inventory" / name
    # what a run of tests that was killed left is taken up by the next one
    known = {"platform_name": name, "platform_identity": name}
    new.write(inventory, ROOT / "inventory" / of, {**known, **variables})
    return Stack(name, variables, directory, str(inventory))


class ByPlatform(LoadScopeScheduling):  # type: ignore[misc]  # its base is untyped
    """Give each worker all tests of one platform at a time."""

    def _split_scope(self, nodeid: str) -> str:
        name = Path(nodeid.partition("::")[0]).stem
        return SHARING.get(name, name)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByPlatform:
    """Have tests shared out by the platforms that they need."""
    return ByPlatform(config, log)


@pytest.fixture(scope="session", autouse=True)
def images(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where several workers test, let one build the images that all platforms start from."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    built = tmp_path_factory.getbasetemp().parent / "images"
    with built.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if built.stat().st_size:
            return
        made = stack("mlops-images", 9230, tmp_path_factory.mktemp("images"))
        try:
            made.play("site.yml", "--skip-tags", "pipeline,verify")
            lock.write("built")
        finally:
            made.destroy()


@pytest.fixture(scope="session")
def test_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A platform whose pipeline has run; tests that change it put it right again."""
    made = stack("mlops-test", 9200, tmp_path_factory.mktemp("mlops-test"))
    try:
        made.play("site.yml")
        yield made
    finally:
        made.destroy()


@pytest.fixture(scope="module")
def absent_platform(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """A platform of which there is an inventory and nothing else."""
    return stack("mlops-absent", 9220, tmp_path_factory.mktemp("mlops-absent"))


@pytest.fixture(scope="module")
def fresh_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A platform on which the pipeline never ran."""
    made = stack("mlops-fresh", 9210, tmp_path_factory.mktemp("mlops-fresh"))
    try:
        made.play("site.yml", "--skip-tags", "pipeline,verify")
        yield made
    finally:
        made.destroy()


@pytest.fixture(scope="session")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The platform of inventory/fraud behind its gateway, on other ports, before any run."""
    made = gated_stack(
        "mlops-gate",
        9743,
        tmp_path_factory.mktemp("mlops-gate"),
        "fraud",
        gateway_users=[
            {"name": "admin", "groups": ["admin"], "password": ADMIN},
            {"name": "guest", "groups": ["guests"], "password": GUEST},
        ],
        # the real size takes minutes
        dvc_runner_projects={
            "fraud": {
                "source": str(ROOT / "examples/fraud"),
                "params": {"params.yaml:data.source": "synthetic", "params.yaml:data.rows": 12000},
            }
        },
    )
    try:
        made.play("site.yml", "--skip-tags", "pipeline,verify")
        yield made
    finally:
        made.destroy()


@pytest.fixture(scope="session")
def gated_env(gated: Stack) -> Path:
    """What `make env` prints for it."""
    path = gated.directory / "env"
    gated.play("playbooks/env.yml", ansible_become=False, dvc_runner_env_file=str(path))
    return path
