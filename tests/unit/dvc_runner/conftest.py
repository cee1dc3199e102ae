"""A workspace of the runner, and small projects for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.unit.conftest import ROLES
from tests.unit.sshd import SSHD, SshServer, ssh_server

from dvc_runner.settings import Settings, settings
from dvc_runner.state import note_delivered

RUNNER = "dvc_runner/files/image/dvc_runner"
DVC = str(Path(sys.executable).parent / "dvc")


@pytest.fixture(autouse=True)
def nobodys_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests, and of a hook they run in, out of git."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)


def git(at: Path, *words: str) -> str:
    """Run git as a user of a project would."""
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.invalid")
    done = subprocess.run(
        ["git", "-C", str(at), *identity, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def dvc(at: Path, *words: str) -> None:
    """Run DVC as a user of a project would."""
    done = subprocess.run([DVC, *words], cwd=at, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def state_of(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a directory with its time and content."""
    return {
        str(path.relative_to(directory)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def repository(at: Path, **files: str) -> Path:
    """Make a git repository with a commit of `dvc.yaml` and `files`, dots written as `__`."""
    at.mkdir(parents=True, exist_ok=True)
    git(at, "init", "--quiet")
    (at / "dvc.yaml").write_text("stages: {}\n")
    for name, content in files.items():
        (at / name.replace("__", ".")).write_text(content)
    git(at, "add", "--all")
    git(at, "commit", "--quiet", "-m", "the project")
    return at


@dataclass
class World:
    """A project, the workspace it is run in and the remote, side by side in one directory."""

    root: Path

    @property
    def project(self) -> Path:
        return self.root / "project"

    @property
    def work(self) -> Path:
        return self.root / "workspace"

    @property
    def remote(self) -> Path:
        return self.root / "remote"

    def command(self, *words: str) -> list[str]:
        return [sys.executable, str(ROLES / RUNNER), *words]

    def environment(self, **more: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
        return {
            **kept,
            "RUNNER_WORKSPACE": str(self.work),
            "RUNNER_REMOTE_URL": str(self.remote),
            "RUNNER_DVC": DVC,
            **more,
        }

    def call(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            env=self.environment(**more),
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, *words: str) -> str:
        """Run the pipeline; returns what was said."""
        done = self.call("local", str(self.project), *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, name: str, **request: object) -> None:
        """Keep a request for a run of the snapshot that is checked out."""
        place = self.work / "project"
        head, _, subject = git(place, "log", "-1", "--format=%H %s").partition(" ")
        request["snapshot"] = subject.removeprefix("Run of ") if "Run of " in subject else head
        subprocess.run(
            self.command("request", name),
            env=self.environment(),
            input=json.dumps(request),
            text=True,
            check=True,
        )

    def said(self, name: str) -> str:
        """What the run of a request says."""
        return (self.work / "requests" / name / "run.log").read_text()

    def result(self, name: str) -> dict[str, Any]:
        """How the run of a request ended."""
        path = self.work / "requests" / name / "result.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def results(self) -> dict[str, dict[str, Any]]:
        """What a checkout can have of the last run."""
        done = self.call("results")
        assert done.returncode == 0, done.stderr
        found: dict[str, dict[str, Any]] = json.loads(done.stdout)["files"]
        return found

    def total(self) -> int:
        metrics = json.loads((self.work / "project/metrics.json").read_text())
        return int(metrics["total"])

    def objects(self) -> set[str]:
        """What the remote holds."""
        return {name for name in state_of(self.remote) if "/md5/" in name}


def new_world(root: Path) -> World:
    """Make a world with an empty project."""
    made = World(root)
    made.project.mkdir(parents=True)
    git(made.project, "init", "--quiet")
    return made


def committed_to(world: World, **files: str) -> None:
    """Commit `files` to the project, dots of their names written as `__`."""
    for name, content in files.items():
        (world.project / name.replace("__", ".")).write_text(content)
    git(world.project, "add", "--all")
    git(world.project, "commit", "--quiet", "-m", "the project")


def delivered_to(root: Path, said: dict[str, Any], **more: str) -> Settings:
    """Make the runner of project churn below `root`, to which `said` was delivered."""
    project = root / "projects/churn"
    for name in ("workspace/requests", "inbox"):
        (project / name).mkdir(parents=True)
    made = settings(
        {
            "RUNNER_WORKSPACE": str(project / "workspace"),
            "RUNNER_INBOX": str(project / "inbox"),
            "RUNNER_PROJECT": "churn",
            **more,
        }
    )
    note_delivered(made, said)
    return made


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[SshServer]:
    """An SSH server of this user."""
    if not SSHD:
        pytest.skip("there is no sshd: apt-get install openssh-server")
    with ssh_server(tmp_path / "ssh") as server:
        yield server
