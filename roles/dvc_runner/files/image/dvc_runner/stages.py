"""One stage of a run at a time, as a scheduler with a task for each asks for them.

Between two of them the workspace is that of an unfinished run; a request without a stage ends it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dvc_runner.git import RunnerError, try_git
from dvc_runner.outputs import behind, below, left_to_git, opened, stages_called
from dvc_runner.settings import Settings
from dvc_runner.state import read_json, write_json
from dvc_runner.workspace import snapshot_of

HELD = "held-"
NAMES = "names.json"


def require_before(at: Settings, request: Mapping[str, Any]) -> list[str]:
    """Return how DVC calls the stage that a request names, or several by one template.

    Raises:
        RunnerError: there is none, or one that it depends on is not up to date.
    """
    with opened(at.project) as repo:
        wanted = stages_called(repo, request["stage"], request.get("pipeline", ""))
        for name, stage in wanted.items():
            if before := behind(repo, stage):
                raise RunnerError(
                    f"Stage {name} depends on {before}, which is not up to date with the project "
                    f"and these parameters: ask for {before} first, or for a run without a stage."
                )
        return [*wanted]


def made_by_stage(at: Settings, request: Mapping[str, Any]) -> dict[str, str]:
    """Map the outputs of the stage that a request names to their md5."""
    with opened(at.project) as repo:
        wanted = stages_called(repo, request["stage"], request.get("pipeline", ""))
        outs = [out for stage in wanted.values() for out in stage.outs]
        return {below(out, repo): out.hash_info.value for out in outs if out.hash_info.value}


@contextmanager
def as_left(at: Settings, commit: str) -> Iterator[None]:
    """Keep outputs that DVC leaves to git while the snapshot that they were made of is put back.

    DVC has no other copy of them, and runs a stage again whose output is another one.
    """
    head = try_git("rev-parse", "--verify", "--quiet", "HEAD", at=at.project)
    lying: list[str] = []
    if commit in (head, snapshot_of(at, "HEAD")):
        with suppress(RunnerError), opened(at.project) as repo:  # DVC says it again when it is run
            lying = [below(out, repo) for out in left_to_git(repo)]
    try:
        hold(at, lying)
        yield
    finally:
        restore_held(at)


def hold(at: Settings, names: Sequence[str]) -> None:
    """Move outputs out of the project, each noted before it goes."""
    aside = Path(tempfile.mkdtemp(dir=at.workspace, prefix=HELD))
    places = {str(place): name for place, name in enumerate(names)}
    write_json(aside / NAMES, places)
    for place, name in places.items():
        (at.project / name).rename(aside / place)


def restore_held(at: Settings) -> None:
    """Put outputs back over what came in their place, also those that a killed run held."""
    for aside in at.workspace.glob(f"{HELD}*"):
        for place, name in read_json(aside / NAMES).items():
            kept, path = aside / place, at.project / name
            if not os.path.lexists(kept):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            kept.replace(path)
        shutil.rmtree(aside)
