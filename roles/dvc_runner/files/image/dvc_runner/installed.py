"""What the image was built with, and the project's own packages on top of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dvc_runner.environments.uv import uv
from dvc_runner.git import git
from dvc_runner.settings import Settings
from dvc_runner.state import digest, read_json

# the lock that was made of a project's requirements.txt, in the image and in what is saved
LOCK = "requirements-lock.txt"
MADE_OF = "made-of"
# what decides how a package is installed, beside the names of its modules
OWN_FILES = ("pyproject.toml", "setup.py", "setup.cfg")


def installed(at: Settings) -> dict[str, Any]:
    """Return what the image says of its environment: digest, source and local packages."""
    return read_json(at.image / "environment.json")


def own_lock(at: Settings) -> bool:
    """Tell whether a lock was made of a project that has none."""
    lock = at.image / LOCK
    return lock.is_file() and bool(lock.read_text().strip())


def install_local(at: Settings, say: Callable[[str], None]) -> None:
    """Install the project's own packages, as they are in the work tree, where that is to be done.

    They stay where they are: a change of their code needs no other installation. Nothing is
    fetched, for what builds them is in the image.

    Raises:
        RunnerError: one does not build.
    """
    told = installed(at)
    local = [str(path) for path in told.get("local") or ()]
    made_of = digest(str(told.get("digest")), *looks(at.project, local)) if local else ""
    note = at.local / MADE_OF
    if made_of == (note.read_text() if note.exists() else ""):
        return
    shutil.rmtree(at.local, ignore_errors=True)
    if not local:
        return
    names = ", ".join("the project" if path == "." else path for path in local)
    say(f"Installing {names} in the environment.")
    before = untracked(at.project)
    tools = [str(path) for path in (at.image / "build").glob("lib/python3*/site-packages")]
    path = os.environ.get("PATH", os.defpath)
    uv(
        *("pip", "install", "--prefix", str(at.local), "--no-deps", "--no-build-isolation"),
        *("--no-cache", "--offline"),
        *(word for each in local for word in words_for(each)),
        at=at.project,
        about=names,
        env={
            "PATH": os.pathsep.join([str(at.image / "build/bin"), path]),
            "PYTHONPATH": os.pathsep.join(tools),
            "UV_PYTHON": str(at.image / "pipeline/bin/python"),
        },
    )
    for name in untracked(at.project) - before:
        # a directory that a stage depends on would be another one
        if name.rstrip("/").endswith(".egg-info"):
            shutil.rmtree(at.project / name)
    note.write_text(made_of)


def words_for(path: str) -> tuple[str, ...]:
    """Return how uv is told of a folder, or of an archive."""
    return (path,) if Path(path).suffix in (".whl", ".gz", ".zip") else ("--editable", path)


def looks(project: Path, local: Iterable[str]) -> list[str]:
    """List what decides how packages are installed: their own files, and names of modules."""
    found: list[str] = []
    for path in local:
        place = project / path
        files = [place / name for name in OWN_FILES] if place.is_dir() else [place]
        found += [digest(file.read_bytes().hex()) for file in files if file.is_file()]
        for folder in (place, place / "src"):
            found += sorted(each.name for each in folder.glob("*") if is_module(each))
    return found


def is_module(path: Path) -> bool:
    """Tell whether Python may import a path."""
    is_package = path.is_dir() and path.name.isidentifier() and path.name != "__pycache__"
    return path.suffix == ".py" or is_package


def untracked(project: Path) -> set[str]:
    """List what git has not, a directory of such as one."""
    words = ("ls-files", "-z", "--others", "--directory", "--no-empty-directory")
    return set(git(*words, at=project).split("\0")) - {""}
