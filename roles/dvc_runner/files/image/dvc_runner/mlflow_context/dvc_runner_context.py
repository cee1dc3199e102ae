"""What MLflow is told of a run that a stage logs: MLflow itself asks for it, by its plug-in point.

This is imported by a project's own Python, of any version that MLflow takes, so it needs nothing
but the standard library. `python dvc_runner_context.py` prints the digest of its packages.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import subprocess
from importlib.metadata import distributions

PATIENCE = 60.0
LONGEST = 250  # of a tag's name, for MLflow


class StageContext:
    """Tags of every run that is started in a stage, but for those that the project sets itself."""

    def __init__(self) -> None:
        """Nothing is found out before a run starts."""
        self._tags: dict[str, str] = {}

    def in_context(self) -> bool:
        """Tell whether this is a stage of a pipeline that the runner runs."""
        return "DVC_RUNNER_TAGS" in os.environ and "DVC_STAGE" in os.environ

    def tags(self) -> dict[str, str]:
        """Return the tags; they are the same for every run of one process."""
        if not self._tags:
            stage = os.environ["DVC_STAGE"]
            told: dict[str, str] = json.loads(os.environ["DVC_RUNNER_TAGS"])
            found = {tag("dep_md5", path): md5 for path, md5 in inputs(stage).items()}
            self._tags = {**told, "dvc_stage": stage, "environment": environment(), **found}
        return self._tags


def tag(kind: str, path: str) -> str:
    """Return the name of the tag that holds something of a path, as MLflow allows one."""
    plain = re.sub(r"[^\w.\- /]", "_", path)
    parts = [part for part in plain.split("/") if part not in ("", ".", "..")]
    return kind + "/" + "/".join(parts)[-(LONGEST - len(kind) - 1) :].strip("/")


def inputs(stage: str) -> dict[str, str]:
    """Ask the runner's DVC for the md5 of every dependency of a stage, as it lies here now."""
    # what the project tells its own Python is not for the runner's
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    try:
        done = subprocess.run(  # noqa: S603 - the runner's own words
            [*json.loads(os.environ["DVC_RUNNER_COMMAND"]), "inputs", stage],
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
            env=kept,
        )
        found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, LookupError) as error:
        # a run is worth more than what is told of it
        said = str(getattr(error, "stderr", None) or error)
        logging.getLogger(__name__).warning("no dep_md5 tags for this run: %s", said.strip()[-300:])
        return {}
    return found


def environment() -> str:
    """Return the SHA-256 of a table of this Python and every package that it finds."""
    found: dict[str, str] = {}
    for package in distributions():  # of two the first is the one that is imported
        name = package.metadata["Name"]  # a removed one may leave its directory
        if name and name != "dvc-runner-context":
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), package.version)
    lines = ["package,version", f"python,{platform.python_version()}"]
    lines += [f"{name},{found[name]}" for name in sorted(found)]
    return hashlib.sha256("\n".join([*lines, ""]).encode()).hexdigest()


if __name__ == "__main__":
    print(environment())
