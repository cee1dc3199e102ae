"""The door for other programs: requests that they put as files where this project's runner looks.

What comes in by it is kept, queued and run as what `request` and `run` bring: there is one queue.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from dvc_runner.git import RunnerError
from dvc_runner.remote import require_remote
from dvc_runner.settings import Settings
from dvc_runner.state import write_json
from dvc_runner.tracking import run_is_tracked
from dvc_runner.turns import ask, came, cancel, cancel_all, is_alive, left_over, unanswered

NAME = re.compile(r"[0-9a-f]{1,40}")
# what a request may say, and what each must be
SAID: Mapping[str, type] = {
    "set": list,
    "grid": list,
    "force": bool,
    "pipeline": str,
    "stage": str,
}
ASKED, CANCELLED = ".json", ".cancel"
SECONDS = 1.0
# a process that is asked for its turn is there by then, but for a machine that is very busy
PATIENCE = 10.0
STARTING = 180.0
# each that is taken up is a process that waits for its turn; the others lie where they are
MOST = 8
GONE = "The run was cancelled before it began."
KILLED = (
    "The run ended without a result: it was killed, as it is where memory runs out "
    "(dvc_runner_memory). Finished stages are kept: ask again."
)


# --- who asks


def submit(inbox: Path, name: str, request: Mapping[str, Any]) -> None:
    """Put a request where the runner looks; the same name again is the same request."""
    put(inbox, f"{name}{ASKED}", json.dumps({"force": False, **request}))


def withdraw(inbox: Path, name: str) -> None:
    """Put there that a request is not wanted any more."""
    put(inbox, f"{name}{CANCELLED}", "")


def put(inbox: Path, name: str, text: str) -> None:
    """Write a file by a rename: the runner finds all of it, or nothing."""
    part = inbox / f".{name}.{time.time_ns()}.part"
    part.write_text(text)
    part.rename(inbox / name)


def lying(inbox: Path, kind: str = "") -> list[Path]:
    """List what lies in an inbox, as it came."""
    kinds = (kind,) if kind else (ASKED, CANCELLED)
    found = [path for path in inbox.glob("[0-9a-f]*") if path.suffix in kinds]
    return sorted((path for path in found if NAME.fullmatch(path.stem)), key=came)


# --- who serves


def watch(at: Settings) -> NoReturn:
    """Take up what comes into the inbox, as long as this process lives."""
    told, dead = "", set[str]()
    while True:
        for path in lying(at.inbox) if at.inbox else ():
            try:
                take(at, path, start)
            except (OSError, subprocess.SubprocessError) as error:
                # it lies there still: a full disk, or too many processes, are not for long
                if told != (told := f"{path.name} is not taken up yet: {error}"):
                    sys.stderr.write(f"{told}\n")
        with suppress(OSError):
            seen = set(killed(at))
            for name in seen & dead:
                refuse(replace(at, asked=name), KILLED)
            dead = seen - dead
        time.sleep(SECONDS)


def take(at: Settings, path: Path, begin: Callable[[Settings], None]) -> None:
    """Take up one file of the inbox; nothing of it is lost where this is broken off."""
    one = replace(at, asked=path.stem)
    if path.suffix == CANCELLED:
        asked = path.with_suffix(ASKED)
        if asked.exists() and not one.request.exists():
            refuse(one, GONE, cancelled=True)
            asked.unlink()
        with suppress(RunnerError):  # it has ended
            cancel(one)
    else:
        if not one.request.exists():
            if sum(map(is_alive, unanswered(at))) >= MOST:
                return
            try:
                ask(one, request_in(path))
            except RunnerError as error:
                refuse(one, str(error))
        if not one.result.exists() and not is_alive(one.request):
            begin(one)
    path.unlink(missing_ok=True)


def request_in(path: Path) -> dict[str, Any]:
    """Read a request.

    Raises:
        RunnerError: it is none.
    """
    try:
        request = json.loads(path.read_bytes())
        known = {key: request[key] for key in SAID if key in request}
        good = known == request and all(
            isinstance(value, SAID[key])
            and (not isinstance(value, list) or all(isinstance(each, str) for each in value))
            for key, value in known.items()
        )
    except (ValueError, TypeError, AttributeError):
        good = False
    if not good:
        raise RunnerError(
            f"Request {path.stem} is no JSON object of {', '.join(SAID)}: correct it and ask again."
        )
    return {"force": False, **request}


def refuse(at: Settings, sentence: str, *, cancelled: bool = False) -> None:
    """Leave a result for a request that is not run; one that is new comes last."""
    at.own.mkdir(parents=True, exist_ok=True)
    if cancelled:
        at.cancelled.touch()
    with at.log.open("a") as log:
        log.write(f"{sentence}\n")
    write_json(at.result, {"ok": False, "error": sentence, "tail": ""})
    write_json(at.request, {})


def killed(at: Settings) -> list[str]:
    """List the requests whose process is gone without a word."""
    return [
        path.parent.name
        for path in unanswered(at)
        if (path.parent / "pid").exists() and not is_alive(path)
    ]


def start(at: Settings) -> None:
    """Start the run of a request, and see it in the queue before the next one comes."""
    (at.own / "pid").unlink(missing_ok=True)
    # through a shell that ends at once: init is to be its parent, for this one waits for nobody
    run = [sys.executable, "-I", str(Path(__file__).parent), "run", at.asked]
    subprocess.run(["sh", "-c", '"$@" & ', "sh", *run], check=True, stdout=subprocess.DEVNULL)  # noqa: S603, S607
    deadline = time.monotonic() + PATIENCE
    while not is_alive(at.request) and not at.result.exists():
        if time.monotonic() > deadline:
            raise subprocess.SubprocessError(f"the run of {at.asked} did not start")
        time.sleep(SECONDS / 20)


def serve_left_over(at: Settings) -> None:
    """Take up the runs that were under way or waited when this container, or its host, stopped."""
    names = left_over(at)
    if names or (at.inbox and lying(at.inbox)):
        await_platform(at)
    for asked in names:
        try:
            start(replace(at, asked=asked))
        except subprocess.SubprocessError as error:
            sys.stderr.write(f"{error}: it is taken up when this container starts again\n")


def await_platform(at: Settings) -> None:
    """Wait until the store and the tracking server answer: with the host they start all at once.

    Where one never does, the run says so.
    """
    deadline = time.monotonic() + STARTING
    while time.monotonic() < deadline:
        with suppress(RunnerError):
            require_remote(at)
            run_is_tracked(at, "0")
            return
        time.sleep(SECONDS)


def withdraw_all(at: Settings) -> dict[str, Any]:
    """Cancel every request, those that were not taken up yet too."""
    coming = [path.stem for path in lying(at.inbox, ASKED)] if at.inbox else []
    for name in coming:
        withdraw(at.inbox or Path(), name)
    ended = cancel_all(at)
    known = {one["cancelled"] for one in ended}
    ended += [{"cancelled": name, "was": "waiting"} for name in coming if name not in known]
    text = ", ".join(f"{one['cancelled']} ({one['was']})" for one in ended)
    return {"cancelled": ended, "text": f"cancelled {text}" if ended else "nothing waits or runs"}
