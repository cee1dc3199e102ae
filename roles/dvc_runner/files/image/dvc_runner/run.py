"""A run, how it ended, and its results."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dvc_runner.data import bring_data
from dvc_runner.git import RunnerError, TimeLimitError, git, try_git, without_passwords
from dvc_runner.history import add, is_kept, note_tracked, runs
from dvc_runner.installed import install_local, installed
from dvc_runner.limits import (
    full_disk,
    give_back,
    limit_met,
    memory_kills,
    reserve,
    time_limit,
)
from dvc_runner.lock import is_running, only_run
from dvc_runner.need import why_needed
from dvc_runner.outputs import (
    REMOTE,
    Output,
    always_run,
    ignore_in_git,
    shown,
)
from dvc_runner.overrides import apply, combinations, names_of, one_run, table
from dvc_runner.parameters import (
    data_of,
    effective_params,
    has_params,
    override,
    require_takes_data,
    values,
)
from dvc_runner.places import place
from dvc_runner.remote import as_remote, missing_in_remote, require_remote
from dvc_runner.settings import Settings
from dvc_runner.stages import as_left, made_by_stage, require_before, restore_held
from dvc_runner.state import (
    LAST_RUN,
    lock_digest,
    locks,
    of_another_run,
    read_json,
    summary,
    whole,
    write_json,
)
from dvc_runner.status import stage_in, stage_that_failed
from dvc_runner.tracking import flat, note_run, now, stage_environment, tell
from dvc_runner.transfer import is_direct, store
from dvc_runner.turns import cancellable, is_alive, turn
from dvc_runner.workspace import (
    check_out,
    clear,
    configure_dvc,
    fetch,
    forget_dead_locks,
    forget_inputs,
    forget_locks,
    forget_stages,
    lineage,
    record,
    set_up,
    snapshot_of,
)

SHA256 = re.compile(r"([0-9a-f]{64})?")
# DVC itself, which a team's remotes let in
WITH_KEYS = (sys.executable, "-I", str(Path(__file__).parent), "dvc")
# what MLflow's client prints of a run that ended, also of one that failed
RUN_ENDED = ("🏃 View run ", "🧪 View experiment at: ")
COUNTED = "failed to fetch data from the cloud"
IN_GIT = re.compile(r"output '(.+)' is already tracked by SCM")
NO_MODULE = re.compile(r"ModuleNotFoundError: No module named '(\w+)")


class StageError(RunnerError):
    """A stage failed, for all that is known by what it was fed."""


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
        for said in process.stdout or ():
            line = without_passwords(said)
            log.write(line)
            log.flush()
            sys.stdout.write(line)
            sys.stdout.flush()
    return process.returncode


def say(at: Settings, line: str) -> None:
    """Say something of the runner's own where the run says what it does."""
    with at.log.open("a") as log:
        log.write(f"{line}\n")
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run(at: Settings, request: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the snapshot in, reproduce the pipeline, push its outputs and record the run.

    Where the request names a stage, that alone is run, and nothing pushed or recorded: what it made
    lies in the workspace until a request without one ends the run.

    Raises:
        RunnerError: the remote can not be used, or a stage or the push failed; finished stages are
            kept and do not run again.
    """
    began, began_at = time.monotonic(), now()
    forget_dead_locks(at.project)
    set_up(at)
    clear(at.scratch)
    require_remote(at)
    state = read_json(at.state)
    everything = bool(request.get("force"))
    if state.get("done"):
        reason, everything = why_needed(at, request)
        if not reason:
            return {"changed": False, "seconds": 0.0, **summary(at)}
        put_lock_back(at, state)
    one_stage, between = bool(request.get("stage")), not state.get("done")
    # where a push failed, `state` is already of data that no good run was made of yet
    good = state.pop("good", state)
    write_json(at.state, {**state, "done": False, "good": good})
    try:
        made_of = reproduce(at, request, state, everything)
    except (RunnerError, TimeLimitError) as error:
        if one_stage and between:
            raise  # it may be asked for again, with what the stages before it made
        raise RunnerError(
            f"{error} {put_back(at, good, fed=may_be_of_data(at, request, error))}"
        ) from error
    if one_stage:
        seconds = round(time.monotonic() - began, 1)
        made = made_by_stage(at, request)
        return {"changed": bool(stage_in(at.log)), "seconds": seconds, "hashes": made}
    # the pipeline took these data: all that can be missing now is their way to the remote
    progress = {**state, **made_of, "done": False, "good": good}
    write_json(at.state, progress)
    outputs = ignore_in_git(at.project)
    push(at, outputs)
    record(at, made_of["snapshot"], outputs, [*made_of["params"], *names_of(made_of["set"])])
    pushed = require_stored(at, outputs)
    last_run = read_json(at.project / LAST_RUN)
    ended = {
        **progress,
        "done": True,
        "lock": lock_digest(at),
        "outputs": [out.path for out in outputs if (at.project / out.path).exists()],
        "hashes": {out.path: out.md5 for out in outputs if out.md5},
        "pushed": pushed,
        "always": always_run(at.project),
        "last_run": last_run,
        # what stages changed of the project without declaring it
        "left": changed_here(at),
        "metrics": shown(at.project, "metrics"),
        # a run that logged nothing new leaves the tracked run, and its commit, what they were
        **(
            lineage(at, made_of["snapshot"])
            if last_run != state.get("last_run")
            else origin_of(state)
        ),
    }
    del ended["good"]
    changed = any(ended[key] != state.get(key) for key in ("lock", "last_run"))
    own = [last_run["run_id"]] if last_run.get("run_id") else []
    times = {"began": began_at, "ended": now()}
    if changed and (not own or last_run == state.get("last_run")):
        own = []
        note_run(at, made_of["snapshot"], {"id": made_of["run"], **times}, outputs)
    ended["mlflow_runs"] = own or ([] if changed else state.get("mlflow_runs", []))
    kept = ("run", "snapshot", "params", "set", "pipeline", "mlflow_runs")
    if changed or not is_kept(at, made_of):
        add(at, {**{key: ended[key] for key in kept}, **times, "asked": at.asked})
    write_json(at.state, ended)
    at.unfinished.unlink(missing_ok=True)
    forget_inputs(at, ended["data"])
    if told := tell(at, lambda line: say(at, line)):
        note_tracked(at, told)
        # others may have been told that no server had heard of before
        if mine := told.get(ended["run"]) or ([] if changed else list(told.values())[-1]):
            write_json(at.state, {**ended, "mlflow_runs": mine})
    return {
        "changed": changed,
        "seconds": round(time.monotonic() - began, 1),
        **summary(at),
    }


def grid(at: Settings, request: Mapping[str, Any]) -> dict[str, Any]:
    """Run each combination of a grid, then put back the run of the project's own parameters.

    A combination that fails is a row of the table, and the others run.

    Raises:
        RunnerError: the project's own parameters do not run, or the time is over.
    """
    own = {key: value for key, value in request.items() if key != "grid"}
    wanted = combinations([*own.pop("set", ()), *request["grid"]])
    say(at, f"{len(wanted)} runs, after that of the project's own parameters.")
    changed = bool(run(at, own)["changed"])
    before, commit = read_json(at.state), git("rev-parse", "runs", at=at.project)
    rows = []
    try:
        for place, items in enumerate(wanted, 1):
            say(at, f"Run {place} of {len(wanted)}: {' '.join(items)}")
            rows.append(row_of(at, own, items))
            changed = changed or "error" not in rows[-1]
    finally:
        put_run_back(at, before, commit)
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    head = ["run", *wanted_names(wanted), *names, "MLflow"]
    lines = [
        [
            row.get("number"),
            *row["values"],
            *(row["metrics"].get(name) for name in names),
            " ".join(row["mlflow_runs"]) or row.get("error", "")[:200] or None,
        ]
        for row in rows
    ]
    text = table(head, lines)
    say(at, text)
    return {"changed": changed, **summary(at), "grid": rows, "table": text}


def wanted_names(wanted: Iterable[Iterable[str]]) -> list[str]:
    """Name the columns of what a grid sets."""
    return [item.partition("=")[0] for item in next(iter(wanted))]


def row_of(at: Settings, request: Mapping[str, Any], items: list[str]) -> dict[str, Any]:
    """Run one combination, and tell what came of it."""
    row: dict[str, Any] = {
        "set": items,
        "values": [item.partition("=")[2] for item in items],
        "metrics": {},
        "mlflow_runs": [],
    }
    try:
        answer = run(at, {**request, "set": items})
    except RunnerError as error:
        if isinstance(error.__cause__, TimeLimitError):
            raise
        say(at, str(error))
        return {**row, "error": str(error)}
    metrics = flat(answer["metrics"], "")
    number = runs(at)[-1]["number"]
    return {**row, "number": number, "metrics": metrics, "mlflow_runs": answer["mlflow_runs"]}


def put_run_back(at: Settings, state: Mapping[str, Any], commit: str) -> None:
    """Bring an earlier run back into the workspace, with all that was known of it."""
    forget_dead_locks(at.project)
    git("checkout", "--quiet", "--force", "--detach", commit, at=at.project)
    git("branch", "--force", "runs", commit, at=at.project)
    configure_dvc(at)
    code = stream([at.dvc, "checkout", "--quiet", "--force"], at, {})
    keep_last_run(at, state.get("last_run", {}))
    at.unfinished.unlink(missing_ok=True)
    write_json(at.state, {**state, "done": not code})


def changed_here(at: Settings) -> list[str]:
    """List the files of git that differ from the run's commit, as `git status` does."""
    said = git("status", "--porcelain", "--untracked-files=no", at=at.project)
    return [line.strip() for line in said.splitlines()]


def push(at: Settings, outputs: Iterable[Output]) -> None:
    """Store in the remote what it lacks of what DVC stores there.

    Raises:
        RunnerError: that failed three times.
    """
    for pause in (2, 4, 0):
        if not (failure := pushing(at, outputs)):
            return
        say(at, failure)
        time.sleep(pause)
    raise RunnerError(
        f"The push to {at.remote_url} failed three times: {failure} The outputs are kept in the "
        "workspace: run again when the remote answers, and only what it lacks is pushed."
    )


def pushing(at: Settings, outputs: Iterable[Output]) -> str:
    """Push once; returns what went wrong."""
    if not is_direct(at):
        with as_remote(at):
            code = stream([at.dvc, "push", "--remote", REMOTE], at, {})
        return f"dvc push ended with code {code}." if code else ""
    try:
        absent = missing_in_remote(at, [key for out in outputs for key in out.objects])
        store(at, absent)
    except RunnerError as error:
        return str(error)
    say(at, f"{len(absent)} files pushed.")
    return ""


def require_stored(at: Settings, outputs: Iterable[Output]) -> list[str]:
    """See to it that the remote has all that DVC stores there; returns the keys of that.

    Raises:
        RunnerError: neither the remote nor the cache has something.
    """
    made = {key: out.path for out in outputs for key in out.objects}
    if absent := missing_in_remote(at, made):
        store(at, absent)
        absent = missing_in_remote(at, absent)
    if absent:
        raise RunnerError(
            f"{at.remote_url} lacks {absent[0]} of {made[absent[0]]} after `dvc push`, and the "
            "workspace's cache has it no more: run every stage again (`make pipeline FORCE=yes`)."
        )
    return sorted(made)


def reproduce(
    at: Settings, request: Mapping[str, Any], state: Mapping[str, Any], everything: bool
) -> dict[str, Any]:
    """Run every stage that must, or `everything`; returns the snapshot, parameters and data.

    Raises:
        RunnerError: something of the request is not there, or a stage failed.
    """
    restore_held(at)
    commit = fetch(at, request.get("source", ""), request.get("snapshot", ""))
    unfinished = go_on(at, effective_params(request, state), one_run(request.get("set", ())))
    before = try_git("rev-parse", "--verify", "--quiet", "HEAD", at=at.project)
    with as_left(at, commit):
        check_out(at, commit, unfinished.get("snapshot", state.get("snapshot", "")))
    configure_dvc(at)
    pipeline = request.get("pipeline", "")
    require_pipeline(at, pipeline)
    if unfinished:
        stream([at.dvc, "checkout", "--quiet", "--force", "--allow-missing"], at, {})
    data = data_of(request, state)
    if not request.get("data") and not has_params(at.project, data):
        data = {}  # they were handed to another project
    if state.get("data") and not data:
        say(at, "The data that were given before are not used any more.")
    require_takes_data(at.project, at.name, request.get("data") or ())
    params = effective_params({**request, "data": data}, {})
    override(at.project, params)
    wanted = one_run(request.get("set", ()))
    apply(at.project, wanted)
    install_local(at, lambda line: say(at, line))
    forget_stages(at.project, before, locks(at))
    environment = installed(at).get("digest", "")
    if (unfinished or state).get("environment", environment) != environment:
        # each has to run once more, and one that has is not run again after a failure
        forget_locks(at.project)
    bring_data(
        at,
        request.get("objects", ""),
        lambda *words: stream([*WITH_KEYS, *words], at, {}),
        lambda: last_words(at.log),
        pipeline,
    )
    targets = [pipeline or "--all-pipelines"]
    if request.get("stage"):
        targets = ["--single-item", *require_before(at, request)]
    # a run that is gone on with keeps its name: what its stages logged before bears it
    name = unfinished.get("run") or uuid.uuid4().hex
    made_of = {"snapshot": commit, "params": params, "data": data, "run": name, "set": wanted}
    made_of |= {"environment": environment, "pipeline": pipeline}
    write_json(at.unfinished, made_of)
    # from its run cache DVC would bring a stage's outputs back, but no run to the tracking server
    repro = [at.dvc, "repro", "--no-run-cache", *(["--force"] if everything else [])]
    repro += targets
    code, kills, told = None, memory_kills(), at.log.stat().st_size
    try:
        code = stream(repro, at, stage_environment(at, commit, name))
    finally:
        if code != 0 or request.get("stage"):
            texts = {name: text.decode() for name, text in locks(at).items()}
            last_run = read_json(at.project / LAST_RUN)
            write_json(at.unfinished, {**made_of, "locks": texts, "last_run": last_run})
    if code:
        why = limit_met(kills, at.log, told) or why_stopped(at)
        kind = RunnerError if IN_GIT.search(why) else StageError
        raise kind(
            f"The pipeline stopped (dvc repro ended with code {code}): {why} "
            "Finished stages are kept."
        )
    return made_of


def may_be_of_data(at: Settings, request: Mapping[str, Any], error: BaseException) -> bool:
    """Tell whether other data could mend what failed, for all that is known."""
    if not isinstance(error, StageError):
        return False
    if request.get("data"):
        return True
    keys = (request.get("data_params") or {}).values()
    return bool(keys) and not request.get("set") and has_params(at.project, keys)


def require_pipeline(at: Settings, pipeline: str) -> None:
    """Raise RunnerError where the project has not the dvc.yaml that is named."""
    if not pipeline or (at.project / pipeline).is_file():
        return
    words = ("ls-files", "-z", "--", ":(glob)**/dvc.yaml")
    there = [name for name in git(*words, at=at.project).split("\0") if name]
    raise RunnerError(
        f"The project has no pipeline {pipeline} (it has {', '.join(there)}): name one of "
        "these as its pipeline, or none to run all."
    )


def why_stopped(at: Settings) -> str:
    """Return what the stage that failed said last, and what to do where that is known."""
    said, told = last_words(at.log), installed(at)
    if found := IN_GIT.search(said):
        path = Path(found[1])
        return (
            f"{said} What DVC keeps, git is to ignore: `git rm -r --cached {path}` in the project, "
            f"and the line /{path.name} in {path.with_name('.gitignore')} (`make save` writes it)."
        )
    found = NO_MODULE.search(said)
    if not found or not told:
        return said
    own = [place / found[1] for place in (at.project, at.project / "src")]
    if any(path.is_dir() or path.with_suffix(".py").is_file() for path in own):
        return f"{said} It is the project's own: set PYTHONPATH in the project's environment."
    if source := told.get("source"):
        return f"{said} {source}, which says what is installed, has no package with it: add that."
    return (
        f"{said} No file that is read here says what the project needs: add a requirements.txt, or "
        "name the file in the project's entry (requirements)."
    )


def last_words(log: Path, most: int = 300) -> str:
    """Return what the stage that failed said last, or else what DVC says of it."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    errors = [at for at, line in enumerate(lines) if line.startswith("ERROR: ")]
    if not errors:
        return f"{' '.join([line for line in lines if line][-3:])[:most].rstrip('.')}."
    # DVC counts what did not come after it has said why
    end = next((at for at in reversed(errors) if COUNTED not in lines[at]), errors[-1])
    command = max((at for at in range(end) if lines[at].startswith("> ")), default=end)
    said = [line for line in lines[command + 1 : end] if line and not line.startswith(RUN_ENDED)]
    ran = "failed to run: " in lines[end]
    words = said[-1] if ran and said else lines[end].removeprefix("ERROR: ")
    return f"{words[:most].rstrip('.')}."


def put_lock_back(at: Settings, state: Mapping[str, Any]) -> None:
    """Bring back the lock and the account of the last run, where another DVC changed one of them.

    From its run cache DVC writes a lock without a run that tells of itself: the two would name
    different runs.
    """
    if not of_another_run(at, state):
        return
    say(at, f"dvc.lock or {LAST_RUN} is not that of the last run: both are put back.")
    git("checkout", "--quiet", "--force", "--detach", "runs", at=at.project)
    keep_last_run(at, state.get("last_run", {}))
    stream([at.dvc, "checkout", "--quiet", "--force", "--allow-missing"], at, {})


def go_on(at: Settings, params: Mapping[str, Any], wanted: list[str]) -> dict[str, Any]:
    """Take up the run that did not end well, where it was of these parameters; returns it."""
    unfinished = read_json(at.unfinished)
    if unfinished.get("params") != params or unfinished.get("set", []) != wanted:
        return {}
    for name, text in unfinished.get("locks", {}).items():
        (at.project / name).parent.mkdir(parents=True, exist_ok=True)
        (at.project / name).write_text(text)
    if unfinished.get("locks"):
        keep_last_run(at, unfinished["last_run"])
    return unfinished


def keep_last_run(at: Settings, told: Mapping[str, Any]) -> None:
    """Write what a run told of itself to the file where it does so, which git ignores."""
    path = at.project / LAST_RUN
    if told:
        path.parent.mkdir(exist_ok=True)
        write_json(path, told)
    else:
        path.unlink(missing_ok=True)


def put_back(at: Settings, good: Mapping[str, Any], *, fed: bool) -> str:
    """Bring the last run that ended well back into the work tree; says what is in force now.

    Args:
        at: the settings.
        good: what was known of that run.
        fed: the data may be at fault, so what to do about them is said too.
    """
    if "lock" not in good:
        write_json(at.state, {})
        forget_inputs(at, {})
        other = ", or run again with other data (`make up DATA=<file>`) or without DATA"
        return (
            "No run has ended well here, so no data, model or metrics are in force: mend what is "
            f"said above{other if fed else ''}."
        )
    forget_dead_locks(at.project)
    git("checkout", "--quiet", "--force", "--detach", "runs", at=at.project)
    configure_dvc(at)
    code = stream([at.dvc, "checkout", "--quiet", "--force"], at, {})
    keep_last_run(at, good.get("last_run", {}))
    # a state of an earlier release may name what was refused: the commit says what was taken
    data = values(at.project, good.get("data") or {})
    made_of = {
        "snapshot": snapshot_of(at, "HEAD") or git("rev-parse", "HEAD", at=at.project),
        "params": values(at.project, good.get("params") or {}),
        "data": data,
    }
    write_json(at.state, {**good, **made_of, "done": not code})
    forget_inputs(at, data)
    sources = [str(value) for value in data.values() if not SHA256.fullmatch(str(value))]
    named = "".join(sources).rpartition("/")[2] or ("the project's own" if fed else "")
    run_id = good.get("last_run", {}).get("run_id", "")
    of = [f"data {named}"] * bool(named) + [f"MLflow run {run_id}"] * bool(run_id)
    stays = f"The last good run stays in force{': ' * bool(of)}{', '.join(of)}."
    if not fed:
        return stays
    return (
        f"{stays} If the data are at fault, `make up` without DATA goes on with those of that run, "
        "and `make up DATA=<file>` with others."
    )


def origin_of(state: Mapping[str, Any]) -> dict[str, str]:
    """Return what was recorded of the commit that the tracked run came from."""
    return {
        key: state[key] for key in ("PIPELINE_GIT_COMMIT", "PIPELINE_GIT_DIRTY") if key in state
    }


def tail(path: Path, count: int = 20) -> str:
    """Return the end of the log, without DVC's own hints."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return "\n".join(lines[-count:])


def serve(at: Settings) -> int:
    """Run what was asked for, when its turn comes; returns the exit code."""
    try:
        said = partial(say, at)
        with cancellable(), turn(at, said), place(at, said):
            code = report(at, read_json(at.request))
            # addresses in it may hold a password; in place, for its lock says whether this is alive
            at.request.write_text("{}")
            return code
    except TimeLimitError as error:  # while it waited
        say(at, str(error))
        write_json(at.result, {"ok": False, "error": str(error), "tail": ""})
        return 1


def run_and_report(at: Settings, request: Mapping[str, Any]) -> int:
    """Run, where no other run is under way; returns the exit code."""
    with only_run(at):
        at.result.unlink(missing_ok=True)
        at.log.write_text("")
        return report(at, request)


def report(at: Settings, request: Mapping[str, Any]) -> int:
    """Run, and leave in the result file how it ended; returns the exit code."""
    try:
        reserve(at)
        request = whole(at, request)
        with time_limit(int(request.get("timeout", 0))):
            answer = {"ok": True, **(grid if request.get("grid") else run)(at, request)}
    except (Exception, TimeLimitError) as error:  # the one who waits must learn of every end
        known = isinstance(error, (RunnerError, TimeLimitError))
        if full := full_disk(at, error):
            give_back(at)
        said = full or (str(error) if known else repr(error))
        failure = {"error": said, "tail": tail(at.log), **stage_that_failed(at)}
        write_json(at.result, {"ok": False, **failure})
        told = {"asked": at.asked, "log": str(at.log), "ended": now()}
        told["cancelled"] = at.cancelled.exists()
        write_json(at.failure, {**failure, **told})
        if not known and not full:
            raise
        sys.stderr.write(f"{said}\n")
        return 1
    write_json(at.result, answer)
    at.failure.unlink(missing_ok=True)
    return 0


def progress(at: Settings, offset: int) -> dict[str, Any]:
    """Return what the log says after `offset`, whether the run goes on, and how it ended."""
    running = is_alive(at.request) if at.asked else is_running(at)
    text = at.log.read_bytes()[offset:].decode(errors="replace") if at.log.exists() else ""
    complete = text if not running else text[: text.rfind("\n") + 1]
    return {
        "running": running,
        "lines": complete.splitlines(),
        "offset": offset + len(complete.encode()),
        "result": None if running else read_json(at.result) or None,
    }
