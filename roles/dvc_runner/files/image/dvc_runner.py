#!/usr/bin/env python3
"""Run a DVC project in a workspace of its own, against one remote and one tracking server.

The project's own checkout is never mounted and never written: a snapshot of what git would commit
is brought here, a run happens here, and each run ends as a commit on top of that snapshot.
"""

from __future__ import annotations

import argparse
import configparser
import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

IDENTITY = {
    "GIT_AUTHOR_NAME": "dvc-runner",
    "GIT_AUTHOR_EMAIL": "dvc-runner@localhost",
    "GIT_COMMITTER_NAME": "dvc-runner",
    "GIT_COMMITTER_EMAIL": "dvc-runner@localhost",
    "GIT_CONFIG_NOSYSTEM": "1",
}
# the same tree must give the same snapshot at any time
EPOCH = {"GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z"}
# set by git for its hooks, and meant for the repository that the hook is of
ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
SNAPSHOT = "refs/heads/snapshot"
LAST_RUN = "logs/last_run.json"
REMOTE = "platform"
TIMEOUT = 10.0
PATIENCE = 2.0
CHUNK = 1 << 20


class RunnerError(Exception):
    """What went wrong, in one sentence with the name, the value seen and the next step."""


@dataclass(frozen=True)
class Settings:
    """Where a run happens and what it talks to."""

    workspace: Path
    remote_url: str
    remote_endpoint: str
    tracking_uri: str
    dvc: str

    @property
    def project(self) -> Path:
        """The work tree that stages run in."""
        return self.workspace / "project"

    @property
    def inputs(self) -> Path:
        """Data files that were handed in."""
        return self.workspace / "inputs"

    @property
    def state(self) -> Path:
        """What the last run was made of and how it ended."""
        return self.workspace / "state.json"

    @property
    def log(self) -> Path:
        """Output of the last run."""
        return self.workspace / "run.log"

    @property
    def result(self) -> Path:
        """How the last run ended."""
        return self.workspace / "result.json"


def settings(environment: Mapping[str, str]) -> Settings:
    """Read the settings from RUNNER_* and MLFLOW_TRACKING_URI."""
    return Settings(
        workspace=Path(environment.get("RUNNER_WORKSPACE", "/workspace")).absolute(),
        remote_url=environment.get("RUNNER_REMOTE_URL", ""),
        remote_endpoint=environment.get("RUNNER_REMOTE_ENDPOINT", ""),
        tracking_uri=environment.get("MLFLOW_TRACKING_URI", ""),
        dvc=environment.get("RUNNER_DVC", "dvc"),
    )


def git(
    *words: str, at: Path | None = None, env: Mapping[str, str] | None = None, given: str = ""
) -> str:
    """Run git on `given` and return what it prints; raises RunnerError with git's own message."""
    inherited = {key: value for key, value in os.environ.items() if key not in ELSEWHERE}
    done = subprocess.run(  # noqa: S603 - words are this file's own
        ["git", "-c", "safe.directory=*", *(["-C", str(at)] if at else []), *words],  # noqa: S607 - from PATH
        input=given,
        capture_output=True,
        text=True,
        errors="surrogateescape",  # a file's name may be any bytes
        check=False,
        env={**inherited, **IDENTITY, **(env or {})},
    )
    if done.returncode:
        raise RunnerError(f"git {words[0]} at {at or Path.cwd()}: {done.stderr.strip()}")
    return done.stdout.strip("\n")


# --- a snapshot of a project: made where the project is, used where it runs ---------------------


def try_git(*words: str, at: Path) -> str:
    """Run git and return what it prints, or an empty string where it fails."""
    try:
        return git(*words, at=at)
    except RunnerError:
        return ""


def make_snapshot(project: Path, cache: Path) -> dict[str, Any]:
    """Record what git would commit of `project`, as a commit without history.

    It is kept in a repository below `cache`, so that only what changed is read again. Nothing is
    written to `project`. The same files at the same commit give the same id.

    Returns:
        `id` of the snapshot, `repository` that holds it, `source_commit` (or "none") and `dirty`.

    Raises:
        RunnerError: `project` is no directory or has no dvc.yaml.
    """
    if not (project / "dvc.yaml").is_file():
        raise RunnerError(
            f"dvc_runner_project {project} has no dvc.yaml: name the directory of a DVC project."
        )
    name = hashlib.sha256(str(project.resolve()).encode()).hexdigest()[:16]
    repository = cache / f"{name}.git"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        forget_dead_git_locks(repository)
        if not (repository / "HEAD").exists():
            git("init", "--quiet", "--bare", str(repository))
        paths = would_commit(project)
        tree = stage(project, repository, paths)
        source = try_git("rev-parse", "--verify", "--quiet", "HEAD", at=project) if paths else ""
        dirty = try_git("rev-parse", "HEAD:./", at=project) != tree
        origin = {"source_commit": source or "none", "dirty": dirty}
        note = json.dumps(origin, sort_keys=True)
        commit = git("--git-dir", str(repository), "commit-tree", tree, "-m", note, env=EPOCH)
        git("--git-dir", str(repository), "update-ref", SNAPSHOT, commit)
    return {"id": commit, "repository": str(repository), **origin}


def would_commit(project: Path) -> list[str]:
    """List what git would commit of `project`; nothing where it is in no repository."""
    kinds = ("--cached", "--others", "--exclude-standard")
    listed = try_git("ls-files", "-z", *kinds, at=project).split("\0")
    return [name for name in listed if (project / name).is_file() or (project / name).is_symlink()]


def stage(project: Path, repository: Path, paths: list[str]) -> str:
    """Put `paths`, or all where there are none, into the index; returns the tree's id."""
    here = ("--git-dir", str(repository), "--work-tree", str(project))
    if paths:
        gone = set(git(*here, "ls-files", "-z", at=project).split("\0")) - {"", *paths}
        git(*here, "update-index", "-z", "--force-remove", "--stdin", at=project, given=zeros(gone))
        git(*here, "update-index", "-z", "--add", "--stdin", at=project, given=zeros(paths))
    else:
        git(*here, "add", "--all", ".", at=project)
    return git(*here, "write-tree", at=project)


def zeros(names: Iterable[str]) -> str:
    """Join names as git reads them with -z."""
    return "".join(f"{name}\0" for name in names)


def forget_dead_git_locks(repository: Path) -> None:
    """Remove locks that a killed git left; the caller knows that no other git works there."""
    for path in (*repository.glob("*.lock"), *repository.glob("refs/**/*.lock")):
        path.unlink()


def write_bundle(snapshot: Mapping[str, Any], target: Path) -> None:
    """Write the snapshot as one file that git can fetch from."""
    git("--git-dir", snapshot["repository"], "bundle", "create", "--quiet", str(target), SNAPSHOT)


# --- the workspace -------------------------------------------------------------------------------


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
    at.inputs.mkdir(exist_ok=True)
    if not (at.project / ".git" / "HEAD").exists():
        git("init", "--quiet", str(at.project))
    if (at.project / "dvc.yaml").exists():
        configure_dvc(at)


def configure_dvc(at: Settings) -> None:
    """Initialise DVC where the project has not; name the remote outside of what git tracks."""
    own = at.project / ".dvc"
    if not (own / "config").exists():
        # what `dvc init` writes; that itself wants a cache outside of the workspace, and refuses to
        # go on where it was killed before
        own.mkdir(exist_ok=True)
        (own / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
        (own / "config").touch()
    config = configparser.ConfigParser(interpolation=None)
    config["core"] = {
        "remote": REMOTE,
        "analytics": "false",
        "check_update": "false",
        "site_cache_dir": str(at.workspace / "site-cache"),
    }
    remote = {"url": at.remote_url}
    if at.remote_endpoint:
        remote["endpointurl"] = at.remote_endpoint
    config[f"'remote \"{REMOTE}\"'"] = remote
    text = io.StringIO()
    config.write(text)
    path = at.project / ".dvc" / "config.local"
    if not path.exists() or path.read_text() != text.getvalue():
        path.write_text(text.getvalue())


def call(command: list[str], at: Path) -> str:
    """Run a short command and return its output; raises RunnerError with its last lines."""
    done = subprocess.run(  # noqa: S603 - this file's own commands
        command, cwd=at, capture_output=True, text=True, check=False
    )
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise RunnerError(f"{' '.join(command[:2])} ended with code {done.returncode}:\n{tail}")
    return done.stdout


def fetch(at: Settings, source: str, snapshot: str) -> str:
    """Bring a snapshot, or the tip of a git URL, into the workspace and return its id."""
    if snapshot and try_git("cat-file", "-t", snapshot, at=at.project) == "commit":
        return snapshot
    if not source:
        raise RunnerError(
            f"Snapshot {snapshot} is not in the workspace: hand it over with `receive`."
        )
    ref = SNAPSHOT if source.endswith(".bundle") else "HEAD"
    depth = () if source.endswith(".bundle") else ("--depth=1",)
    git("fetch", "--quiet", "--no-tags", *depth, source, ref, at=at.project)
    return git("rev-parse", "FETCH_HEAD", at=at.project)


def lock_blob(at: Settings, commit: str) -> str:
    """Return the id of dvc.lock in a commit, or an empty string."""
    return (
        try_git("rev-parse", "--verify", "--quiet", f"{commit}:dvc.lock", at=at.project)
        if commit
        else ""
    )


def check_out(at: Settings, commit: str, before: str) -> None:
    """Put the snapshot's files into the work tree.

    The lock of the last run stays unless the project itself brings another one: that is how DVC
    knows what need not run again.
    """
    lock = at.project / "dvc.lock"
    if lock.exists():
        forget_stages(at.project, try_git("show", f"{commit}:dvc.yaml", at=at.project))
    kept = lock.read_bytes() if lock.exists() else None
    git("checkout", "--quiet", "--force", "--detach", commit, at=at.project)
    if kept is not None and before and lock_blob(at, before) == lock_blob(at, commit):
        lock.write_bytes(kept)


def round_trip_yaml() -> Any:  # noqa: ANN401 - comes with DVC, and is not there where snapshots are made
    """Return a reader and writer of YAML that keeps comments and quotes."""
    from ruamel.yaml import YAML  # noqa: PLC0415 - no other subcommand needs it

    yaml = YAML()
    yaml.preserve_quotes = True
    return yaml


def forget_stages(project: Path, pipeline: str) -> None:
    """Remove what dvc.lock says of stages that `pipeline` has not, and their outputs.

    DVC never does, and an output that no .gitignore names any more would go into git.
    """
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415 - comes with DVC

    yaml = round_trip_yaml()
    lock = project / "dvc.lock"
    try:
        known, content = yaml.load(pipeline), yaml.load(lock.read_text())
    except YAMLError:
        return  # DVC says it better
    if not isinstance(known, dict) or not isinstance(content, dict):
        return
    known, locked = known.get("stages") or {}, content.get("stages") or {}
    gone = [name for name in locked if name.partition("@")[0] not in known]
    for name in gone:
        for out in locked.pop(name).get("outs", []):
            path = project / out["path"]
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if gone:
        with lock.open("w") as output:
            yaml.dump(content, output)
    if gone and not locked:
        (project / LAST_RUN).unlink(missing_ok=True)  # another project's


def parameter(project: Path, name: str) -> tuple[Path, Any, Any, str]:
    """Find `file:dotted.key`: its file, that as a document, the mapping it is in and its key.

    Raises:
        RunnerError: the file or the key does not exist.
    """
    file, _, dotted = name.rpartition(":")
    path = project / (file or "params.yaml")
    if not path.is_file():
        raise RunnerError(
            f"dvc_runner_params or dvc_runner_data_params names {name}, and the project has no "
            f"{path.name}: correct it."
        )
    document = above = place = round_trip_yaml().load(path.read_text())
    for key in dotted.split("."):
        if not isinstance(place, dict) or key not in place:
            known = ", ".join(map(str, place)) if isinstance(place, dict) else "no keys"
            raise RunnerError(
                f"dvc_runner_params or dvc_runner_data_params names {name}, and {path.name} "
                f"has no {key!r} there (it has {known}): correct it."
            )
        above, place = place, place[key]
    return path, document, above, dotted.rpartition(".")[2]


def override(project: Path, params: Mapping[str, Any]) -> None:
    """Set `file:dotted.key` in the project's YAML files, keeping comments.

    Raises:
        RunnerError: the file or the key does not exist.
    """
    for name, value in params.items():
        path, document, above, key = parameter(project, name)
        if above[key] != value:
            above[key] = value
            with path.open("w") as output:
                round_trip_yaml().dump(document, output)


def has_params(project: Path, names: Iterable[str]) -> bool:
    """Tell whether a project has every parameter, named as `override` takes them."""
    try:
        for name in names:
            parameter(project, name)
    except RunnerError:
        return False
    return True


def receive(at: Settings, name: str, source: BinaryIO) -> dict[str, Any]:
    """Store a handed-in file under inputs/ by a rename and return its name, size and sha256."""
    if Path(name).name != name or name in ("", ".."):
        raise RunnerError(f"The name of an input is a plain file name, not {name!r}.")
    at.inputs.mkdir(parents=True, exist_ok=True)
    total, size = hashlib.sha256(), 0
    with tempfile.TemporaryDirectory(dir=at.inputs, prefix=".part-") as part:
        with (Path(part) / name).open("wb") as output:
            while block := source.read(CHUNK):
                total.update(block)
                size += len(block)
                output.write(block)
        (Path(part) / name).rename(at.inputs / name)
    return {"name": name, "size": size, "sha256": total.hexdigest()}


# --- what a run is made of, and whether it is needed ---------------------------------------------


def effective_params(request: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the request's parameters over those that were given before.

    Data handed to an earlier run stays the project's data until other data is named, so that a
    later run does not fall back to a default source by surprise.
    """
    return {**request.get("params", {}), **(request.get("data") or state.get("data") or {})}


def outputs_of(lock: Path) -> dict[str, str]:
    """Map every output in a dvc.lock to its md5."""
    from ruamel.yaml import YAML  # noqa: PLC0415 - comes with DVC

    stages = (YAML(typ="safe", pure=True).load(lock.read_text()) or {}).get("stages", {})
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}


def missing_in_remote(at: Settings, hashes: list[str]) -> list[str]:
    """List the md5s that the remote lacks; a directory's counts, its files are pushed before it."""
    keys = {value: f"files/md5/{value[:2]}/{value[2:]}" for value in hashes}
    if not at.remote_url.startswith("s3://"):
        return [value for value, key in keys.items() if not (Path(at.remote_url) / key).exists()]
    import botocore.session  # noqa: PLC0415 - comes with dvc-s3, and takes a while
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    bucket, _, prefix = at.remote_url.removeprefix("s3://").partition("/")
    client = botocore.session.get_session().create_client(
        "s3", endpoint_url=at.remote_endpoint or None
    )
    absent = []
    for value, key in keys.items():
        try:
            client.head_object(Bucket=bucket, Key=f"{prefix}/{key}".lstrip("/"))
        except ClientError as error:
            if error.response["Error"]["Code"] != "404":
                raise RunnerError(
                    f"{at.remote_url} at {at.remote_endpoint} refuses: {error}."
                ) from error
            absent.append(value)
        except BotoCoreError as error:
            raise RunnerError(
                f"{at.remote_url} does not answer at {at.remote_endpoint} ({error}): "
                "start it and run again."
            ) from error
    return absent


def run_is_tracked(at: Settings, run_id: str) -> bool:
    """Ask the tracking server whether it knows a run; only an HTTP address can be asked."""
    if not at.tracking_uri.startswith("http"):
        return True
    query = urllib.parse.urlencode({"run_id": run_id})
    try:
        with urllib.request.urlopen(  # noqa: S310 - the platform's own server
            f"{at.tracking_uri}/api/2.0/mlflow/runs/get?{query}", timeout=TIMEOUT
        ):
            return True
    except urllib.error.HTTPError as error:
        if error.code == 404:  # noqa: PLR2004 - HTTP's own number
            return False
        raise RunnerError(
            f"MLFLOW_TRACKING_URI {at.tracking_uri} answers {error.code}: see its log."
        ) from error
    except OSError as error:
        raise RunnerError(
            f"MLFLOW_TRACKING_URI {at.tracking_uri} does not answer ({error}): "
            "start it and run again."
        ) from error


def why_needed(at: Settings, request: Mapping[str, Any]) -> tuple[str, bool]:
    """Say why a run is needed, or return an empty reason; and whether every stage must run again.

    Args:
        at: the settings.
        request: `snapshot` or `source`, `params`, `data`, `force`.
    """
    state = read_json(at.state)
    if request.get("force"):
        return "it was asked for", True
    if reason := why_outdated(request, state) or why_incomplete(at, state):
        return reason, False
    run_id = state.get("last_run", {}).get("run_id")
    if run_id and not run_is_tracked(at, run_id):
        return f"the tracking server does not know run {run_id}", True
    return "", False


def why_outdated(request: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """Say in what the request differs from the last run, or return an empty reason."""
    if not state.get("done"):
        return "no run has ended well yet"
    if request.get("snapshot"):
        if state.get("snapshot") != request["snapshot"]:
            return "the project changed"
    elif request.get("source"):
        tip = git("ls-remote", request["source"], "HEAD").split()
        if not tip or state.get("snapshot") != tip[0]:
            return "the project's repository moved"
    if state.get("params") != effective_params(request, state):
        return "the parameters or the data changed"
    return ""


def why_incomplete(at: Settings, state: Mapping[str, Any]) -> str:
    """Say what is gone of the last run's results, or return an empty reason."""
    lock = at.project / "dvc.lock"
    if not lock.exists() or hashlib.sha256(lock.read_bytes()).hexdigest() != state.get("lock"):
        return "dvc.lock is not that of the last run"
    gone = [path for path in outputs_of(lock) if not (at.project / path).exists()]
    if gone:
        return f"{gone[0]} is not in the workspace"
    if missing_in_remote(at, state.get("pushed", [])):
        return "the remote lacks outputs"
    return ""


# --- a run ---------------------------------------------------------------------------------------


@contextmanager
def only_run(at: Settings, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the workspace's lock; raises RunnerError where a run holds it for `patience` seconds.

    Somebody who only asks whether a run is under way holds it for a moment too.
    """
    at.workspace.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    with (at.workspace / "lock").open("w") as lock:
        while not try_lock(lock):
            if time.monotonic() > deadline:
                raise RunnerError(f"A run is under way in {at.workspace}: wait for it.")
            time.sleep(PATIENCE / 20)
        # DVC inherits it: where this process is killed, its DVC still works in the workspace
        os.set_inheritable(lock.fileno(), True)
        yield


def try_lock(file: IO[str]) -> bool:
    """Lock an open file; False where another holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_running(at: Settings) -> bool:
    """Tell whether a run holds the workspace."""
    try:
        with only_run(at, patience=0):
            return False
    except RunnerError:
        return True


def stream(command: list[str], at: Settings, env: Mapping[str, str]) -> int:
    """Run a command, its output to the log and to this process's own; returns its exit code."""
    with (
        at.log.open("a") as log,
        subprocess.Popen(  # noqa: S603 - DVC
            command,
            close_fds=False,  # it keeps the workspace's lock
            cwd=at.project,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **env},
        ) as process,
    ):
        for line in process.stdout or ():
            log.write(line)
            log.flush()
            sys.stdout.write(line)
            sys.stdout.flush()
    return process.returncode


def lineage(at: Settings, commit: str) -> dict[str, str]:
    """Return what stages are told of the project's commit."""
    note = git("log", "-1", "--format=%B", commit, at=at.project)
    try:
        origin = json.loads(note)
        source, dirty = origin["source_commit"], origin["dirty"]
    except (ValueError, KeyError, TypeError):
        source, dirty = commit, False
    return {"PIPELINE_GIT_COMMIT": source, "PIPELINE_GIT_DIRTY": str(dirty).lower()}


def forget_dead_locks(project: Path) -> None:
    """Remove git's and DVC's locks: this process holds the workspace, so their owners are dead."""
    forget_dead_git_locks(project / ".git")
    for name in ("lock", "rwlock", "rwlock.lock"):
        (project / ".dvc" / "tmp" / name).unlink(missing_ok=True)


def record(at: Settings, commit: str) -> None:
    """Commit what the run left of dvc.lock and parameters on top of the snapshot."""
    git("add", "--all", ".", at=at.project)
    if git("status", "--porcelain", at=at.project):
        git("commit", "--quiet", "--no-verify", "-m", f"Run of {commit}", at=at.project)
    git("branch", "--force", "runs", at=at.project)


def show_metrics(at: Settings) -> dict[str, Any]:
    """Return the project's metrics files, path to content."""
    try:
        shown = json.loads(call([at.dvc, "metrics", "show", "--json"], at.project))
        files = next(iter(shown.values()))["data"]
        return {path: entry["data"] for path, entry in files.items()}
    except (RunnerError, ValueError, KeyError, StopIteration):
        return {}


def run(at: Settings, request: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the snapshot in, reproduce the pipeline, push its outputs and record the run.

    Raises:
        RunnerError: a stage or the push failed; finished stages are kept and do not run again.
    """
    forget_dead_locks(at.project)
    set_up(at)
    state = read_json(at.state)
    _, everything = why_needed(at, request) if state.get("done") else ("", False)
    write_json(at.state, {**state, "done": False})
    commit = fetch(at, request.get("source", ""), request.get("snapshot", ""))
    check_out(at, commit, state.get("snapshot", ""))
    configure_dvc(at)
    if not has_params(at.project, state.get("data") or {}):
        state["data"] = {}  # it was handed to another project
    params = effective_params(request, state)
    override(at.project, params)
    data = request.get("data") or state.get("data") or {}
    progress = {**state, "done": False, "snapshot": commit, "params": params, "data": data}
    write_json(at.state, progress)
    began = time.monotonic()
    # from its run cache DVC would bring a stage's outputs back, but no run to the tracking server
    repro = [at.dvc, "repro", "--no-run-cache", *(["--force"] if everything else [])]
    if code := stream(repro, at, lineage(at, commit)):
        raise RunnerError(
            f"The pipeline stopped (dvc repro ended with code {code}). Finished stages are kept."
        )
    for pause in (2, 4, 0):
        if not (code := stream([at.dvc, "push"], at, {})):
            break
        time.sleep(pause)
    else:
        raise RunnerError(
            f"dvc push to {at.remote_url} ended with code {code} three times. The outputs are kept "
            "in the workspace: run again when the remote answers, and only what it lacks is pushed."
        )
    record(at, commit)
    lock = at.project / "dvc.lock"
    hashes = list(outputs_of(lock).values())
    absent = missing_in_remote(at, hashes)  # a project may keep outputs from the remote
    last_run = read_json(at.project / LAST_RUN)
    write_json(
        at.state,
        {
            **progress,
            "done": True,
            "lock": hashlib.sha256(lock.read_bytes()).hexdigest(),
            "pushed": [value for value in hashes if value not in absent],
            "last_run": last_run,
            "metrics": show_metrics(at),
            # a run that logged nothing new leaves the tracked run, and its commit, what they were
            **(lineage(at, commit) if last_run != state.get("last_run") else origin_of(state)),
        },
    )
    changed = read_json(at.state).get("lock") != state.get("lock") or last_run != state.get(
        "last_run"
    )
    return {
        "changed": changed,
        "seconds": round(time.monotonic() - began, 1),
        **summary(at),
    }


def origin_of(state: Mapping[str, Any]) -> dict[str, str]:
    """Return what was recorded of the commit that the tracked run came from."""
    return {
        key: state[key] for key in ("PIPELINE_GIT_COMMIT", "PIPELINE_GIT_DIRTY") if key in state
    }


def summary(at: Settings) -> dict[str, Any]:
    """Return what a person wants to know of the last run that ended well."""
    state = read_json(at.state)
    return {key: state.get(key, {}) for key in ("last_run", "metrics", "snapshot", "params")}


def tail(path: Path, count: int = 20) -> str:
    """Return the end of the log, without DVC's own hints."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return "\n".join(lines[-count:])


def run_and_report(at: Settings, request: Mapping[str, Any]) -> int:
    """Run, and leave in the result file how it ended; returns the exit code."""
    with only_run(at):
        at.result.unlink(missing_ok=True)
        at.log.write_text("")
        try:
            answer = {"ok": True, **run(at, request)}
        except RunnerError as error:
            answer = {"ok": False, "error": str(error), "tail": tail(at.log)}
        except Exception as error:  # the one who waits must learn of every end
            write_json(at.result, {"ok": False, "error": repr(error), "tail": tail(at.log)})
            raise
        write_json(at.result, answer)
    if not answer["ok"]:
        sys.stderr.write(f"{answer['error']}\n")
    return 0 if answer["ok"] else 1


def progress(at: Settings, offset: int) -> dict[str, Any]:
    """Return what the log says after `offset`, whether the run goes on, and how it ended."""
    running = is_running(at)
    text = at.log.read_bytes()[offset:].decode(errors="replace") if at.log.exists() else ""
    complete = text if not running else text[: text.rfind("\n") + 1]
    return {
        "running": running,
        "lines": complete.splitlines(),
        "offset": offset + len(complete.encode()),
        "result": None if running else read_json(at.result) or None,
    }


def clear(at: Settings) -> None:
    """Forget how the last run ended, so that nobody takes that for the end of the next."""
    if not is_running(at):
        at.result.unlink(missing_ok=True)
        at.log.write_text("")


def check(at: Settings, request: Mapping[str, Any]) -> dict[str, Any]:
    """Tell whether a run is under way or needed, and why."""
    if is_running(at):
        return {"running": True, "needed": True, "reason": "a run is under way", "known": True}
    reason, _ = why_needed(at, request)
    snapshot = request.get("snapshot", "")
    known = bool(snapshot) and try_git("cat-file", "-t", snapshot, at=at.project) == "commit"
    return {
        "running": False,
        "needed": bool(reason),
        "reason": reason,
        "known": known,
        **summary(at),
    }


def export(at: Settings, output: BinaryIO) -> None:
    """Write dvc.lock, every output and the logs of the last run as a tar archive."""
    lock = at.project / "dvc.lock"
    if not lock.exists():
        raise RunnerError("There is no run to export yet: run the pipeline first.")
    names = ["dvc.lock", *sorted(outputs_of(lock)), "logs"]
    with tarfile.open(fileobj=output, mode="w|") as archive:
        for name in names:
            if (at.project / name).exists():
                archive.add(at.project / name, name)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(
        prog="dvc_runner", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("setup", help="make the workspace ready; safe to repeat")
    commands.add_parser("idle", help="set up, then wait for runs")
    commands.add_parser(
        "export", help="write the last run's dvc.lock, outputs and logs to stdout as tar"
    )
    for name, what in (("check", "tell whether a run is needed"), ("run", "run the pipeline")):
        commands.add_parser(name, help=what).add_argument(
            "request", help="JSON: snapshot, source, params, data, force"
        )
    commands.add_parser("clear", help="forget how the last run ended, before another is started")
    commands.add_parser("receive", help="store stdin as an input file").add_argument("name")
    commands.add_parser("progress", help="what a run says").add_argument("offset", type=int)
    local = commands.add_parser(
        "local", help="snapshot a project and run it here, without any server"
    )
    local.add_argument("project", type=Path)
    local.add_argument(
        "--data", default="", help="a CSV file, a zip, a URL or the name of a known source"
    )
    local.add_argument(
        "--data-param",
        action="append",
        default=[],
        help="the parameter that holds the data's source, or its sha256",
        metavar="source|sha256=FILE:KEY",
    )
    local.add_argument(
        "--param", action="append", default=[], help="file:key=JSON value", metavar="FILE:KEY=VALUE"
    )
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit code."""
    arguments = parser().parse_args(argv)
    at = settings(os.environ)
    try:
        return dispatch(arguments, at)
    except RunnerError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def dispatch(arguments: argparse.Namespace, at: Settings) -> int:
    """Carry out the subcommand."""
    match arguments.command:
        case "setup":
            set_up(at)
        case "idle":
            set_up(at)
            os.execvp("sleep", ["sleep", "infinity"])  # noqa: S606, S607 - nothing to do until a run is asked for
        case "check":
            print(json.dumps(check(at, json.loads(arguments.request))))
        case "run":
            return run_and_report(at, json.loads(arguments.request))
        case "clear":
            clear(at)
        case "receive":
            print(json.dumps(receive(at, arguments.name, sys.stdin.buffer)))
        case "progress":
            print(json.dumps(progress(at, arguments.offset)))
        case "export":
            export(at, sys.stdout.buffer)
        case "local":
            return run_local(arguments, at)
    return 0


def data_request(data: str, keys: Mapping[str, str], received: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that make a project read `data`.

    Args:
        data: what the user named.
        keys: `source` and `sha256`, the parameters (`file:key`) that hold them in this project.
        received: name and sha256 of the file handed in, or empty for a URL or a known source.
    """
    source = f"../inputs/{received['name']}" if received else data
    return {keys["source"]: source, keys["sha256"]: received.get("sha256", "")}


def run_local(arguments: argparse.Namespace, at: Settings) -> int:
    """Run a project with this process as the runner."""
    set_up(at)
    found = make_snapshot(arguments.project, at.workspace / "snapshots")
    bundle = at.workspace / "project.bundle"
    write_bundle(found, bundle)
    fetch(at, str(bundle), "")
    params = {
        key: json.loads(value)
        for key, _, value in (item.partition("=") for item in arguments.param)
    }
    request: dict[str, Any] = {"snapshot": found["id"], "params": params}
    if arguments.data:
        keys = dict(item.split("=", 1) for item in arguments.data_param)
        if missing := {"source", "sha256"} - keys.keys():
            raise RunnerError(
                f"--data {arguments.data} needs the project's parameter for {min(missing)}: "
                f"name it, --data-param {min(missing)}=config.yaml:some.key."
            )
        received: dict[str, Any] = {}
        if Path(arguments.data).is_file():
            with Path(arguments.data).open("rb") as source:
                received = receive(at, Path(arguments.data).name, source)
        request["data"] = data_request(arguments.data, keys, received)
    state = check(at, request)
    if not state["needed"]:
        print("Nothing to do: the last run is of this project, these parameters and this data.")
        return 0
    return run_and_report(at, request)


if __name__ == "__main__":
    sys.exit(main())
