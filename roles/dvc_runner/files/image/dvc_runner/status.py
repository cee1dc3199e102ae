"""What a person asks of a project: whether it runs, how it ended, and which stage failed."""

from __future__ import annotations

import mmap
import re
import shlex
import time
from pathlib import Path
from typing import Any

from dvc_runner.history import runs, when
from dvc_runner.lock import is_running
from dvc_runner.outputs import opened, stage_named
from dvc_runner.overrides import spelled
from dvc_runner.places import ahead, is_queue_held
from dvc_runner.settings import Settings
from dvc_runner.state import read_json
from dvc_runner.tracking import flat
from dvc_runner.turns import ahead as before
from dvc_runner.turns import came, is_alive, unanswered

MOST = 4  # metrics on one line
FAILED = re.compile(
    r"^ERROR: failed to reproduce '(?P<stage>[^']*)'"
    r"(?:: failed to run: (?P<command>.*?), exited with (?P<code>-?\d+)$)?",
    re.MULTILINE | re.DOTALL,
)
RUNNING = b"Running stage '"


def stage_that_failed(at: Settings) -> dict[str, Any]:
    """Name the stage that ended a run, its exit code and command; empty where none did."""
    text = at.log.read_text(errors="replace") if at.log.exists() else ""
    found = list(FAILED.finditer(text))
    if not found:
        return {}
    stage, command, code = (found[-1][key] for key in ("stage", "command", "code"))
    known: dict[str, Any] = {"stage": stage}
    if command is not None:
        again = shlex.join(["dvc_runner", "shell", "--failed", "--stage", stage, "--", command])
        known |= {"code": int(code), "command": command, "again": again}
    return known


def place_of(project: Path, stage: str) -> str:
    """Return the directory that a stage runs in, below the project."""
    with opened(project) as repo:
        return str(Path(stage_named(repo, stage).wdir).relative_to(repo.root_dir))


def waiting(at: Settings) -> list[str]:
    """Name the requests that wait for their turn, in that order."""
    served = read_json(at.running).get("asked", "")
    alive = [path for path in unanswered(at) if is_alive(path) and path.parent.name != served]
    return [path.parent.name for path in sorted(alive, key=came)]


def place_in_queue(at: Settings) -> int | None:
    """Return how many runs must end before this project's has a place.

    None where it has one, or wants none; 0 where it waits because the queue is held.
    """
    tickets = at.queue.glob("[0-9]*") if at.queue else ()
    mine = [path for path in tickets if path.name.partition("-")[2] == at.name]
    if not mine or read_json(max(mine)):
        return None
    place = max(0, ahead(max(mine)) - at.at_once + 1)
    return place if place or is_queue_held(at) else None


def standing(at: Settings) -> dict[str, Any]:
    """Return how a request stands: its state, how many runs end before it begins, its result."""
    if result := read_json(at.result):
        gone = "cancelled" if at.cancelled.exists() else "failed"
        return {"state": "done" if result.get("ok") else gone, "place": None, "result": result}
    served = read_json(at.running).get("asked") == at.asked and is_alive(at.request)
    queued = place_in_queue(at)
    place = (queued or 0) + (0 if served else len(before(at)))
    waits = not served or queued is not None
    return {"state": "waiting" if waits else "running", "place": place if waits else None}


def stage_in(log: Path) -> str:
    """Name the last stage that a log says was started; it may be larger than memory."""
    if not log.is_file() or not log.stat().st_size:
        return ""
    with log.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        at = len(text)
        while (at := text.rfind(RUNNING, 0, at)) > 0 and text[at - 1 : at] != b"\n":
            pass
        end = text.find(b"'", at + len(RUNNING))
        return text[at + len(RUNNING) : end].decode(errors="replace") if min(at, end) >= 0 else ""


def status(at: Settings) -> dict[str, Any]:
    """Return the state of the project, with one line for people as `text`."""
    known, failure, state = runs(at), read_json(at.failure), read_json(at.state)
    # after a grid the run in force is not the last one
    last = next((run for run in known if run["run"] == state.get("run")), (known or [{}])[-1])
    if last:
        last = {**last, "age": round(time.time() - last["ended"] / 1000)}
    answer: dict[str, Any] = {
        "project": at.name,
        "last_run": {**last, "metrics": state.get("metrics", {})} if last else {},
        "failed": failure,
        "waiting": waiting(at),
        "runs": len(known),
    }
    text = f"run {last['number']} {age(last['age'])} ago{metrics(answer)}" if last else "no run yet"
    if is_running(at):
        now = read_json(at.running)
        name = stage_in(at.requests / now.get("asked", "") / "run.log")
        answer |= {"state": "running", "since": now.get("since"), "stage": name}
        since = f" since {when(now['since'])}" if now.get("since") else ""
        stage = f", stage {name}" if name else ""
        queue = f", {len(answer['waiting'])} waiting" if answer["waiting"] else ""
        doing = "running"
        if (place := place_in_queue(at)) is not None:
            doing = "waiting"
            answer |= {"state": "waiting", "place": place}
            since = f", place {place} in the queue" if place else ""
        text = f"{doing}{since}{stage}{queue}; before it {text}"
    elif failure:
        how = "cancelled" if failure.get("cancelled") else "failed"
        answer["state"] = how
        where = f" at stage {failure['stage']}" if failure.get("stage") else ""
        text = f"{how}{where} {when(failure['ended'])}; in force is {text}"
    elif last or state.get("done"):
        answer["state"] = "done"
    else:
        answer["state"] = "never ran"
    if is_queue_held(at):
        # what waits has no workspace yet
        held = f"{len(answer['waiting'])} waiting" if answer["waiting"] else "nothing waits"
        text = f"queue held by a rotation, {held}; {text}"
    return {**answer, "text": text}


def metrics(answer: dict[str, Any]) -> str:
    """Spell the first metrics of the last run."""
    found = [
        f"{name} {spelled(value)}"
        for name, value in flat(answer["last_run"]["metrics"], "").items()
        if isinstance(value, (int, float))
    ]
    return f": {', '.join(found[:MOST])}" if found else ""


def age(seconds: int) -> str:
    """Spell a length of time for people."""
    for name, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {name}"
    return f"{seconds} s"
