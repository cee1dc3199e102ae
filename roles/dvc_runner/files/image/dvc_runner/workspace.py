"""The workspace: a work tree of snapshots, with inputs and DVC's own settings."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from dvc_runner.git import RunnerError, forget_dead_git_locks, git, try_git
from dvc_runner.handover import read_config
from dvc_runner.outputs import PIPELINE, REMOTE, Output, opened, outputs_at, outputs_in, stages_in
from dvc_runner.parameters import file_of, round_trip_yaml
from dvc_runner.remote import s3_settings
from dvc_runner.settings import Settings
from dvc_runner.snapshot import SNAPSHOT, zeros
from dvc_runner.state import LAST_RUN, locks
from dvc_runner.turns import STALE_SECONDS, came, pending

RUN_OF = "Run of "
PART = ".part-"
SAME_NAME = re.compile(rf"'?remote \"{REMOTE}\"'?")
CHUNK = 1 << 20


def set_up(at: Settings) -> None:
    """Make the workspace ready; doing it again changes nothing.

    Raises:
        RunnerError: the workspace belongs to another user.
    """
    at.workspace.mkdir(parents=True, exist_ok=True)
    if at.project.exists() and at.project.stat().st_uid != os.getuid():
        raise RunnerError(
            f"{at.project} belongs to uid {at.project.stat().st_uid} and the runner is uid "
            f"{os.getuid()}: set dvc_runner_user back, or remove the volume with `make destroy`."
        )
    for path in (at.inputs, at.home, at.scratch):
        path.mkdir(exist_ok=True)
    if not (at.project / ".git" / "HEAD").exists():
        git("init", "--quiet", str(at.project))
    if (at.project / PIPELINE).exists() or (at.project / ".dvc" / "config").exists():
        configure_dvc(at)


def configure_dvc(at: Settings) -> None:
    """Initialise DVC where the project has not; name the remote outside of what git tracks.

    It stands beside the project's own, of which the default stays what it is.

    Raises:
        RunnerError: the project's or its owner's settings leave no place for it.
    """
    own = at.project / ".dvc"
    if not (own / "config").exists():
        # what `dvc init` writes; that itself wants a cache outside of the workspace, and refuses to
        # go on where it was killed before
        own.mkdir(exist_ok=True)
        (own / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
        (own / "config").touch()
    theirs, config = read_config(own / "config"), read_config(at.secrets / "dvc_config")
    if any(SAME_NAME.fullmatch(section) for section in theirs.sections()):
        raise RunnerError(
            f"The project has a DVC remote called {REMOTE}, which is what the platform's own is "
            f"called here: rename it (`dvc remote rename {REMOTE} ours`)."
        )
    default = theirs.has_option("core", "remote") or config.has_option("core", "remote")
    config.read_dict(
        {
            "core": {
                **({} if default else {"remote": REMOTE}),
                "analytics": "false",
                "check_update": "false",
                "site_cache_dir": str(at.workspace / "site-cache"),
            },
            # what the project names may be another machine's
            "cache": {"dir": "cache"},
            f"'remote \"{REMOTE}\"'": remote_settings(at),
        }
    )
    text = io.StringIO()
    config.write(text)
    path = own / "config.local"
    if not path.exists() or path.read_text() != text.getvalue():
        path.touch(mode=0o600)
        path.write_text(text.getvalue())


def remote_settings(at: Settings) -> dict[str, str]:
    """Return what DVC is told of the platform's remote, and no other client of a stage is."""
    if not at.remote_url.startswith("s3://"):
        return {"url": at.remote_url}
    found = {"url": at.remote_url, "endpointurl": at.remote_endpoint, **s3_settings(at)}
    return {name: value for name, value in found.items() if value}


def fetch(at: Settings, source: str, snapshot: str) -> str:
    """Bring a snapshot into the workspace from its bundle and return its id."""
    if snapshot and try_git("cat-file", "-t", snapshot, at=at.project) == "commit":
        return snapshot
    if not source:
        raise RunnerError(
            f"Snapshot {snapshot} is not in the workspace: hand it over with `receive`."
        )
    git("fetch", "--quiet", "--no-tags", source, SNAPSHOT, at=at.project)
    tip = git("rev-parse", "FETCH_HEAD", at=at.project)
    if snapshot and tip != snapshot:
        raise RunnerError(f"{source} holds {tip} and not the snapshot {snapshot}: run again.")
    return tip


def lock_blob(at: Settings, commit: str, name: str) -> str:
    """Return the id of a dvc.lock in a commit, or an empty string."""
    words = ("rev-parse", "--verify", "--quiet", f"{commit}:./{name}")
    return try_git(*words, at=at.project) if commit else ""


def check_out(at: Settings, commit: str, before: str) -> None:
    """Put the snapshot's files into the work tree; what a run made beside them stays.

    The lock of the last run stays unless the project itself brings another one: that is how DVC
    knows what need not run again.
    """
    kept = locks(at)
    if snapshot_of(at, "HEAD"):
        # uncached outputs are of the run's commit: git would remove them with it
        forget_rules(at)
        try_git("reset", "--quiet", "HEAD~1", at=at.project)
    git("checkout", "--quiet", "--force", "--detach", commit, at=at.project)
    for name, text in kept.items() if before else ():
        if lock_blob(at, before, name) == lock_blob(at, commit, name):
            (at.project / name).parent.mkdir(parents=True, exist_ok=True)
            (at.project / name).write_bytes(text)
        elif not lock_blob(at, commit, name):
            (at.project / name).unlink(missing_ok=True)


def forget_rules(at: Settings) -> None:
    """Remove the .gitignore files that DVC made in the last run: it makes what it needs anew."""
    kinds = (":(glob)**/.gitignore", ":(exclude).dvc")
    made = ("diff", "--name-only", "-z", "--diff-filter=A", "HEAD~1", "HEAD", "--", *kinds)
    for name in filter(None, try_git(*made, at=at.project).split("\0")):
        (at.project / name).unlink(missing_ok=True)


def snapshot_of(at: Settings, commit: str) -> str:
    """Return the snapshot that a commit is a run of, or an empty string."""
    subject = try_git("log", "-1", "--format=%s", commit, at=at.project)
    return subject.removeprefix(RUN_OF) if subject.startswith(RUN_OF) else ""


def forget_stages(project: Path, before: str, names: Iterable[str]) -> None:
    """Remove what each dvc.lock says of stages that the project has not, and what only those made.

    DVC never does.

    Args:
        project: the work tree.
        before: the commit that was checked out before, whose stages say which outputs persist.
        names: of each dvc.lock.
    """
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415 - comes with DVC

    yaml, contents = round_trip_yaml(), dict[str, Any]()
    try:
        for name in names:
            contents[name] = yaml.load((project / name).read_text())
        locked = {
            (name, stage) for name, text in contents.items() for stage in text.get("stages") or {}
        }
        with opened(project) as repo:
            now, known = outputs_in(repo), stages_in(repo)
            gone = locked - known
            before_it = outputs_at(repo, before) if gone and before else []
    except (FileNotFoundError, YAMLError, AttributeError, RunnerError):
        return  # DVC says it better
    for path in made_by(gone, before_it):
        if not any(overlap(path, out.path) for out in now):
            remove_output(project, path)
    for name, stage in gone:
        del contents[name]["stages"][stage]
    for name in {name for name, _ in gone}:
        with (project / name).open("w") as output:
            yaml.dump(contents[name], output)
        if not (project / name).with_name(PIPELINE).exists():
            (project / name).unlink()
    if gone == locked and gone:
        (project / LAST_RUN).unlink(missing_ok=True)  # another project's


def forget_locks(project: Path) -> None:
    """Remove what is locked of every stage, so that each runs again, but for those that may not."""
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415 - comes with DVC

    yaml = round_trip_yaml()
    try:
        with opened(project) as repo:
            stages = [
                (Path(stage.path).with_name("dvc.lock"), stage.name)
                for stage in repo.index.stages
                if getattr(stage, "name", "") and not stage.frozen
            ]
        for path in sorted({path for path, _ in stages if path.exists()}):
            content = yaml.load(path.read_text())
            for name in [name for place, name in stages if place == path]:
                content["stages"].pop(name, None)
            with path.open("w") as output:
                yaml.dump(content, output)
    except (YAMLError, AttributeError, KeyError, TypeError, RunnerError):
        return  # DVC says it better


def clear(folder: Path) -> None:
    """Remove what is in a directory."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def made_by(stages: Collection[tuple[str, str]], outputs: Iterable[Output]) -> set[str]:
    """Name what stages, each with the dvc.lock that has it, made from nothing."""
    return {out.path for out in outputs if (out.record, out.stage) in stages and not out.persist}


def overlap(one: str, other: str) -> bool:
    """Tell whether two paths are the same, or one is below the other."""
    return Path(one).is_relative_to(other) or Path(other).is_relative_to(one)


def remove_output(project: Path, name: str) -> None:
    """Remove an output, unless it lies outside of the project or git has it."""
    path = project / name
    inside = path.parent.resolve().is_relative_to(project.resolve()) and ".." not in path.parts
    if not inside or git("ls-files", "--", f":(literal){name}", at=project):
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def receive(at: Settings, name: str, source: BinaryIO) -> dict[str, Any]:
    """Store a handed-in file under inputs/ by a rename and return its name, size and sha256.

    Its name may have the directory that `input_of` gives it.
    """
    if not re.fullmatch(r"([0-9a-f]{16}/)?[^/]+", name) or Path(name).name == "..":
        raise RunnerError(f"The name of an input is a plain file name, not {name!r}.")
    (at.inputs / name).parent.mkdir(parents=True, exist_ok=True)
    total, size = hashlib.sha256(), 0
    with tempfile.TemporaryDirectory(dir=at.inputs, prefix=PART) as part:
        with (Path(part) / "input").open("wb") as output:
            while block := source.read(CHUNK):
                total.update(block)
                size += len(block)
                output.write(block)
        (Path(part) / "input").rename(at.inputs / name)
    return {"name": name, "size": size, "sha256": total.hexdigest()}


def forget_dead_locks(project: Path) -> None:
    """Remove git's and DVC's locks: this process holds the workspace, so their owners are dead."""
    forget_dead_git_locks(project / ".git")
    for name in ("lock", "rwlock", "rwlock.lock"):
        (project / ".dvc" / "tmp" / name).unlink(missing_ok=True)


def record(
    at: Settings, commit: str, outputs: Iterable[Output] = (), params: Iterable[str] = ()
) -> None:
    """Commit what belongs to a run on top of its snapshot, and no output that DVC keeps.

    That is what holds the md5s, the files of the parameters that were set, outputs that DVC leaves
    to git, and what DVC needs to read them.

    Args:
        at: the settings.
        commit: the snapshot.
        outputs: those of the project.
        params: the parameters that were set, named as `override` takes them.
    """
    records = {"dvc.lock", *(out.record for out in outputs)}
    locks = {name for name in records if (at.project / name).is_file()}
    own = [".dvc/.gitignore", ".dvc/config", *(file_of(name) for name in params)]
    own += [out.path for out in outputs if out.inside and not out.cached]
    paths = [*(f":(literal){name}" for name in own), ":(glob)**/.gitignore"]
    kinds = ("--cached", "--others", "--exclude-standard")
    listed = git("ls-files", "-z", *kinds, "--", *paths, at=at.project).split("\0")
    changed = zeros(sorted({*locks, *listed} - {""}))
    git("update-index", "-z", "--add", "--remove", "--stdin", at=at.project, given=changed)
    if git("diff", "--cached", "--name-only", at=at.project):
        git("commit", "--quiet", "--no-verify", "-m", f"{RUN_OF}{commit}", at=at.project)
    git("branch", "--force", "runs", at=at.project)


def lineage(at: Settings, commit: str) -> dict[str, str]:
    """Return what stages are told of the project's commit."""
    note = git("log", "-1", "--format=%B", commit, at=at.project)
    try:
        origin = json.loads(note)
        source, dirty = origin["source_commit"], origin["dirty"]
    except (ValueError, KeyError, TypeError):
        source, dirty = commit, False
    return {"PIPELINE_GIT_COMMIT": source, "PIPELINE_GIT_DIRTY": str(dirty).lower()}


def stage_secrets(at: Settings) -> dict[str, str]:
    """Return the project's own secrets as variables of its stages."""
    paths = at.secrets.glob("env_*")
    return {path.name.removeprefix("env_"): path.read_text().rstrip("\n") for path in paths}


def is_coming(path: Path) -> bool:
    """Tell whether a file is being handed in at this path."""
    return path.name.startswith(PART) and time.time() - came(path) / 1e9 < STALE_SECONDS


def forget_inputs(at: Settings, data: Mapping[str, Any]) -> None:
    """Remove the files that were handed in, but for what `data` or a request to come names."""
    there = list(at.inputs.iterdir())  # what comes later is nobody's to remove
    named = [str(value) for value in data.values()]
    for request in pending(at):
        named += [str(value) for value in (request.get("data") or {}).values()]
        named += [f"/{Path(request.get(key) or '').name}/" for key in ("source", "objects")]
    for path in there:
        if any(f"/{path.name}/" in name for name in named) or is_coming(path):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix in (".bundle", ".objects"):
            path.unlink(missing_ok=True)
