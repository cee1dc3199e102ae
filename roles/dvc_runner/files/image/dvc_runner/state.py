"""What is kept of a run as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvc_runner.git import RunnerError, try_git
from dvc_runner.settings import Settings

# where a project's pipeline tells of the run that it tracked
LAST_RUN = "logs/last_run.json"
DELIVERED = ("snapshot", "source", "params", "data_params", "pipeline", "timeout")
NOTHING = "Nothing was delivered to project {} yet: `make up`, or `make pipeline`, brings it there."


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or an empty one where there is none."""
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object by a rename."""
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(value, indent=1, sort_keys=True))
    temporary.rename(path)


def digest(*parts: str) -> str:
    """Hash texts so that no two lists of them give the same."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def locks(at: Settings) -> dict[str, bytes]:
    """Map each dvc.lock of the project to its content; git has them all after a run."""
    words = ("ls-files", "-z", "--cached", "--others", "--", ":(glob)**/dvc.lock", ":(exclude).dvc")
    names = sorted({*try_git(*words, at=at.project).split("\0")} - {""})
    return {
        name: (at.project / name).read_bytes() for name in names if (at.project / name).is_file()
    }


def lock_digest(at: Settings) -> str:
    """Hash dvc.lock, or all there are; an empty string where there is none."""
    found = locks(at)
    several = "".join(
        f"{hashlib.sha256(text).hexdigest()} {name}\n" for name, text in found.items()
    )
    text = found["dvc.lock"] if found.keys() == {"dvc.lock"} else several.encode()
    return hashlib.sha256(text).hexdigest() if found else ""


def of_another_run(at: Settings, state: Mapping[str, Any]) -> str:
    """Name the file that is not that of the last run, dvc.lock or LAST_RUN, or return nothing."""
    if lock_digest(at) != state.get("lock"):
        return "dvc.lock"
    if read_json(at.project / LAST_RUN) != state.get("last_run", {}):
        return LAST_RUN
    return ""


def note_delivered(at: Settings, request: Mapping[str, Any]) -> None:
    """Keep what a request brings to be run; its data are those of the run that took them."""
    brought = {key: request[key] for key in DELIVERED if key in request}
    if brought != read_json(at.delivered):
        write_json(at.delivered, brought)


def whole(at: Settings, request: Mapping[str, Any]) -> dict[str, Any]:
    """Complete a request that brings nothing itself by what was last delivered.

    Raises:
        RunnerError: nothing was.
    """
    if "snapshot" in request:
        note_delivered(at, request)
        return dict(request)
    delivered = read_json(at.delivered)
    if not delivered:
        raise RunnerError(NOTHING.format(at.name))
    if not Path(delivered.get("source") or "").is_file():
        delivered.pop("source", None)  # it is in the workspace
    return {**delivered, **request}


def summary(at: Settings) -> dict[str, Any]:
    """Return what a person wants to know of the last run that ended well."""
    state = read_json(at.state)
    known = ("last_run", "metrics", "snapshot", "params", "mlflow_runs", "hashes")
    return {key: state.get(key, [] if key == "mlflow_runs" else {}) for key in known}
