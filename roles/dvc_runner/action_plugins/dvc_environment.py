"""Find and lock the environments of projects, on the machine that runs Ansible."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

sys.path.insert(0, str(Path(__file__).parent.parent / "files" / "image"))
# one implementation of what an environment is, here and in the image
from dvc_runner.environments.locks import Environment, environment_asked, environment_at
from dvc_runner.environments.target import Target
from dvc_runner.git import RunnerError
from dvc_runner.sources import folder_of, kept_folder_of
from dvc_runner.state import digest


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible ships no types
    """Tell what the image of each project is built from.

    Arguments: projects (as the filter dvc_runner_listed returns them), cache, python (of the image,
    such as "3.13") and machine (of the host that builds, such as x86_64).

    Returns `environments`, by the name of the project: `digest`, `source` (the file that says it),
    `local` (its own packages), `said` (a sentence of it) and `files`, what the build's context has
    by name.
    """

    def run(
        self, tmp: str | None = None, task_vars: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        given = self._task.args
        cache, target = Path(given["cache"]).expanduser(), Target.of(given)
        found: dict[str, Environment] = {}
        errors: list[str] = []
        for project in given["projects"]:
            try:
                made = locked(project, cache, target)
            except RunnerError as error:
                if not (last := remembered(project, cache, target)):
                    errors.append(f"{project['name']}: {error}")
                    continue
                # no other project waits for this one; a run of it is refused with the same words
                Display().warning(f"{project['name']} keeps its last environment: {error}")
                made = last
            else:
                remember(project, cache, target, made)
            if made.new:
                Display().display(f"  {project['name']}: environment of {made.sentence}")
            found[project["name"]] = made
        if errors:
            raise AnsibleActionFail("\n".join(errors))
        return result | {
            "changed": False,
            "environments": {
                name: {
                    "digest": made.digest,
                    "files": made.files,
                    "local": list(made.local),
                    "said": made.sentence,
                    "source": made.source,
                }
                for name, made in found.items()
            },
        }


def locked(project: Mapping[str, Any], cache: Path, target: Target) -> Environment:
    """Return the environment of a project, wherever that is."""
    try:
        folder = folder_of(project, cache)
    except RunnerError as error:
        # a verb that only looks needs no server; a run asks it again, and ends where it is away
        if not (kept := kept_folder_of(project, cache)):
            raise
        Display().warning(f"{project['name']} is taken as it was fetched last: {error}")
        folder = kept
    return environment_asked(project, folder, cache, target)


def note(project: Mapping[str, Any], cache: Path, target: Target) -> Path:
    """Return the file that names the last environment of a project."""
    made_of = (project["name"], str(project["source"]), target.python, target.machine)
    return cache / "environments/by-name" / digest(*made_of)


def remember(project: Mapping[str, Any], cache: Path, target: Target, made: Environment) -> None:
    """Note which environment a project has."""
    path = note(project, cache, target)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(made.folder.name)


def remembered(project: Mapping[str, Any], cache: Path, target: Target) -> Environment | None:
    """Return the last environment of a project, or None where there is none here."""
    path = note(project, cache, target)
    folder = cache / "environments" / path.read_text() if path.is_file() else cache
    return environment_at(folder) if (folder / "environment.json").is_file() else None
