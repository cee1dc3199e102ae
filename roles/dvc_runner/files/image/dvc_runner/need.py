"""What a run is made of, and whether it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dvc_runner.git import RunnerError, try_git
from dvc_runner.installed import installed
from dvc_runner.lock import is_running
from dvc_runner.overrides import one_run
from dvc_runner.parameters import effective_params
from dvc_runner.places import holder
from dvc_runner.remote import missing_in_remote
from dvc_runner.settings import Settings
from dvc_runner.state import note_delivered, of_another_run, read_json, summary
from dvc_runner.tracking import run_is_tracked


def why_needed(at: Settings, request: Mapping[str, Any]) -> tuple[str, bool]:
    """Say why a run is needed, or return an empty reason; and whether every stage must run again.

    Args:
        at: the settings.
        request: `snapshot` or `source`, `params`, `data`, `force`.
    """
    state = read_json(at.state)
    if request.get("grid"):
        return "a grid of parameters was asked for", False
    if request.get("force"):
        return "it was asked for", True
    if reason := (
        why_outdated(request, state) or why_installed_anew(at, state) or why_incomplete(at, state)
    ):
        return reason, False
    run_id = state.get("last_run", {}).get("run_id")
    if run_id and not run_is_tracked(at, run_id):
        return f"the tracking server does not know run {run_id}", True
    if at.untracked.is_dir() and any(at.untracked.iterdir()):
        return "the tracking server was not told of a run yet", False
    return "", False


def why_outdated(request: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """Say in what the request differs from the last run, or return an empty reason."""
    if not state.get("done"):
        return "the last run was broken off" if "lock" in state else "no run has ended well yet"
    if request.get("snapshot", state.get("snapshot")) != state.get("snapshot"):
        return "the project changed"
    if request.get("pipeline", "") != state.get("pipeline", ""):
        return "another pipeline of the project is asked for"
    if state.get("params") != effective_params(request, state):
        return "the parameters or the data changed"
    if state.get("set", []) != one_run(request.get("set", [])):
        return "other parameters are asked for, or were"
    return ""


def why_installed_anew(at: Settings, state: Mapping[str, Any]) -> str:
    """Say that the packages differ from those of the last run, or return an empty reason."""
    told = installed(at)
    if not state.get("environment") or state["environment"] == told.get("digest"):
        return ""
    return f"the environment changed ({told.get('source') or 'no packages'})"


def require_environment(at: Settings, request: Mapping[str, Any]) -> None:
    """Refuse to run a project in an environment that is not its own any more.

    Raises:
        RunnerError: the image was built from another lock than the request's.
    """
    told, wanted = installed(at), request.get("environment")
    if wanted and told.get("digest") and told["digest"] != wanted:
        raise RunnerError(
            f"The packages that {at.name} asks for are not those of its image any more: `make up` "
            "builds that anew and runs the project in it."
        )


def why_incomplete(at: Settings, state: Mapping[str, Any]) -> str:
    """Say what is gone of the last run's results, or return an empty reason."""
    if another := of_another_run(at, state):
        return f"{another} is not that of the last run"
    if "outputs" not in state:
        return "the last run is of an earlier release, which did not note what it made"
    gone = [path for path in state["outputs"] if not (at.project / path).exists()]
    if gone:
        return f"{gone[0]} is not in the workspace"
    if missing_in_remote(at, state.get("pushed", [])):
        return "the remote lacks outputs"
    if always := state.get("always"):
        return f"stage {always[0]} runs every time, as the project says"
    return ""


def check(at: Settings, request: Mapping[str, Any]) -> dict[str, Any]:
    """Tell whether a run is under way or needed, and why; and who holds the queue."""
    require_environment(at, request)
    snapshot = request.get("snapshot", "")
    known = bool(snapshot) and try_git("cat-file", "-t", snapshot, at=at.project) == "commit"
    if is_running(at):
        return {
            "running": True,
            "needed": True,
            "reason": "a run is under way",
            "known": known,
            "held": holder(at),
        }
    reason, _ = why_needed(at, request)
    if not reason:
        note_delivered(at, request)  # it is what lies here, and no run will say so
    return {
        "running": False,
        "needed": bool(reason),
        "reason": reason,
        "known": known,
        "held": holder(at),
        **summary(at),
    }
