"""A copy of the workspace where something is done once more: by hand, or to see that it is so."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import sys
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from dvc_runner.data import bring_data
from dvc_runner.git import RunnerError, TimeLimitError, git
from dvc_runner.history import runs
from dvc_runner.installed import installed
from dvc_runner.limits import time_limit
from dvc_runner.lock import is_running, only_run
from dvc_runner.outputs import opened, outputs_at, outputs_of
from dvc_runner.overrides import apply, table
from dvc_runner.parameters import override
from dvc_runner.places import place
from dvc_runner.run import last_words, say, stream
from dvc_runner.settings import Settings
from dvc_runner.state import read_json
from dvc_runner.status import place_of
from dvc_runner.tracking import ask, reason, stage_environment, tags_of
from dvc_runner.turns import note_began
from dvc_runner.workspace import configure_dvc, snapshot_of

FAILED = "failed"


def copy(at: Settings, name: str, commit: str) -> Settings:
    """Check a commit out beside the work tree, with its cache; returns the settings for there."""
    here = replace(at, place=name)
    shutil.rmtree(here.project, ignore_errors=True)
    git("init", "--quiet", str(here.project))
    alternates = here.project / ".git/objects/info/alternates"
    alternates.write_text(f"{at.project}/.git/objects\n")
    git("checkout", "--quiet", "--force", "--detach", commit, at=here.project)
    configure_dvc(here)
    config = configparser.ConfigParser(interpolation=None)
    config.read(here.project / ".dvc/config.local")
    with opened(at.project) as repo:
        config["cache"] = {"dir": repo.cache.local_cache_dir}
    with (here.project / ".dvc/config.local").open("w") as output:
        config.write(output)
    return here


def failed_copy(at: Settings) -> Settings:
    """Make a copy of what the last run failed with: its project, parameters and finished stages."""
    unfinished = read_json(at.unfinished)
    if "snapshot" not in unfinished:
        raise RunnerError("No run has failed here: leave --failed out for the last good one.")
    here = copy(at, FAILED, unfinished["snapshot"])
    override(here.project, unfinished["params"])
    apply(here.project, unfinished.get("set", ()))
    for name, text in unfinished.get("locks", {}).items():
        (here.project / name).parent.mkdir(parents=True, exist_ok=True)
        (here.project / name).write_text(text)
    stream([at.dvc, "checkout", "--quiet", "--force", "--allow-missing"], here, {})
    return here


def shell(at: Settings, failed: bool, stage: str, words: list[str], shown: bool) -> int:
    """Become a shell, or a command, with the directory and environment that a stage has.

    Args:
        at: the settings.
        failed: in a copy of what the last run failed with, instead of the last good run.
        stage: the one to be in the place of; any where it is empty.
        words: the command; one word is a line for the shell, as in dvc.yaml.
        shown: print the directory and the variables for a shell to read, and do nothing.
    """
    if is_running(at):
        sys.stderr.write("A run is under way in this workspace: what you change may be lost.\n")
    here = failed_copy(at) if failed else at
    head = git("rev-parse", "HEAD", at=here.project)
    snapshot = snapshot_of(here, "HEAD") or head
    found = stage_environment(here, snapshot, uuid.uuid4().hex)
    found |= {"DVC_ROOT": str(here.project), **({"DVC_STAGE": stage} if stage else {})}
    folder = here.project / (place_of(here.project, stage) if stage else ".")
    if not shown:
        os.chdir(folder)
        bare = [shutil.which("bash") or "/bin/sh"]
        command = words if len(words) > 1 else ["/bin/sh", "-c", words[0]] if words else bare
        os.execvpe(command[0], command, {**os.environ, **found})  # noqa: S606 - what was asked for
    print(f"cd {shlex.quote(str(folder))}")
    for key, value in {"PATH": os.environ["PATH"], **found}.items():
        print(f"export {key}={shlex.quote(value)}")
    return 0


def run_named(at: Settings, name: str) -> dict[str, Any]:
    """Find the run of a number, or of an MLflow run's id.

    Raises:
        RunnerError: this workspace has none, or the tracking server can not be asked.
    """
    for run in runs(at):
        if name in (str(run["number"]), run["run"], *run["mlflow_runs"]):
            return run
    known = ", ".join(str(run["number"]) for run in runs(at)) or "none"
    if name.isdecimal() or not at.tracking_uri.startswith("http"):
        raise RunnerError(f"Run {name} is not kept here (there are {known}): name one of those.")
    query = urllib.parse.urlencode({"run_id": name})
    try:
        tags = tags_of(ask(at, "GET", f"mlflow/runs/get?{query}")["run"])
    except (OSError, KeyError, ValueError) as error:
        raise RunnerError(f"MLflow tells nothing of run {name} ({reason(error)}).") from error
    for run in runs(at)[::-1]:
        if run["run"] == tags.get("dvc_run") or is_made_of(at, run, tags):
            return run
    raise RunnerError(
        f"Run {name} is of project {tags.get('project', 'unknown')} at commit "
        f"{tags.get('git_commit', 'unknown')}, and no run that is kept here is it (there are "
        f"{known}): run the pipeline at that commit."
    )


def is_made_of(at: Settings, run: Mapping[str, Any], tags: Mapping[str, str]) -> bool:
    """Tell whether a run has the snapshot and every md5 that tags name."""
    if run["snapshot"] != tags.get("git_snapshot"):
        return False
    names = git("ls-tree", "-r", "-z", "--name-only", run["commit"], at=at.project).split("\0")
    locks = [name for name in names if name.rpartition("/")[2] == "dvc.lock"]
    lock = "\n".join(git("show", f"{run['commit']}:{name}", at=at.project) for name in locks)
    md5s = [value for key, value in tags.items() if key.startswith(("dep_md5/", "out_md5/"))]
    return bool(md5s) and all(md5 in lock for md5 in md5s)


def own_packages(here: Settings) -> list[str]:
    """List where the copy has the project's own packages, which are installed from elsewhere."""
    local = [here.project / str(path) for path in installed(here).get("local") or ()]
    return [str(each) for path in local for each in (path / "src", path) if each.is_dir()]


@contextmanager
def thrown_away(at: Settings, commit: str) -> Iterator[Settings]:
    """Make a copy that is gone afterwards."""
    name = f"again-{uuid.uuid4().hex[:8]}"
    try:
        yield copy(at, name, commit)
    finally:
        shutil.rmtree(at.workspace / name, ignore_errors=True)


def reproduce(at: Settings, name: str, seconds: int) -> dict[str, Any]:
    """Run every stage of an earlier run again, in a copy, and compare what comes out.

    Args:
        at: the settings.
        name: of the run, as `run_named` takes it.
        seconds: how long it may take once it has a place; 0 is no limit.

    Raises:
        RunnerError: the run is not known, its data are nowhere, a stage failed or took too long.
    """
    run = run_named(at, name)
    try:
        with only_run(at), place(at, lambda line: say(at, line)), time_limit(seconds):
            return made_again(at, run)
    except TimeLimitError as error:
        raise RunnerError(
            f"Run {run['number']} could not be made again within dvc_runner_timeout, {seconds} "
            "seconds: give it more, or 0 for no limit. The workspace is as it was."
        ) from error


def made_again(at: Settings, run: Mapping[str, Any]) -> dict[str, Any]:
    """Run every stage of a run in a copy, and compare."""
    with thrown_away(at, run["commit"]) as here:
        note_began(at)
        with opened(at.project) as repo:
            before = {out.path: out.md5 for out in outputs_at(repo, run["commit"])}
        at.log.write_text("")
        pipeline = run.get("pipeline", "")
        bring_data(
            here,
            "",
            lambda *words: stream([at.dvc, *words], here, {}),
            lambda: last_words(at.log),
            pipeline,
        )
        told = stage_environment(here, run["snapshot"], uuid.uuid4().hex, reproduces=run["run"])
        told["PYTHONPATH"] = os.pathsep.join([*own_packages(here), told["PYTHONPATH"]])
        repro = [at.dvc, "repro", "--force", "--no-run-cache"]
        repro += [pipeline or "--all-pipelines"]
        if code := stream(repro, here, told):
            raise RunnerError(
                f"Run {run['number']} could not be made again (dvc repro ended with code {code}): "
                f"{last_words(at.log)} The workspace is as it was."
            )
        after = {out.path: out.md5 for out in outputs_of(here.project)}
    pairs = {path: [before.get(path), after.get(path)] for path in {**before, **after}}
    rows = [
        [path, *((md5 or "")[:12] for md5 in pair), "same" if pair[0] == pair[1] else "DIFFERS"]
        for path, pair in pairs.items()
    ]
    return {
        "run": run,
        "same": all(old == new for old, new in pairs.values()),
        "outputs": pairs,
        "table": table(["output", f"run {run['number']}", "again", ""], rows),
    }
