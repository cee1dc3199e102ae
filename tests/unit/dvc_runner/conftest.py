"""A workspace of the runner, and small projects for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.unit.conftest import load

At = Any  # the runner's Settings; its module is loaded by path, which no type checker follows
RUNNER = "dvc_runner/files/image/dvc_runner.py"
DVC = str(Path(sys.executable).parent / "dvc")


@pytest.fixture(autouse=True)
def nobodys_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests, and of a hook they run in, out of git."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)


@pytest.fixture(scope="session")
def runner() -> ModuleType:
    """The runner's code."""
    return load(RUNNER)


def git(at: Path, *words: str) -> str:
    """Run git as a user of a project would."""
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.invalid")
    done = subprocess.run(
        ["git", "-C", str(at), *identity, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


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
