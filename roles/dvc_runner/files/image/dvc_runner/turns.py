"""Who asked, and whose turn it is: requests are served one by one, in the order they came."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from dvc_runner.git import RunnerError, TimeLimitError
from dvc_runner.limits import stop_children
from dvc_runner.lock import PATIENCE, is_held, try_lock
from dvc_runner.places import HELD, is_queue_held
from dvc_runner.settings import Settings
from dvc_runner.state import read_json, write_json

KEPT = 100
STALE_SECONDS = 3600.0
# one that has no result may still be handed over, or be taken up again
LOST_SECONDS = 7 * 24 * 3600.0
CANCELLED = "The run was cancelled. Finished stages are kept."


def ask(at: Settings, request: Mapping[str, Any]) -> None:
    """Keep a request until its turn, and clean old ones away."""
    if not is_held(at.workspace / "lock"):  # what `reproduce` says is there too
        for name in ("request.json", "result.json", "run.log"):
            (at.workspace / name).unlink(missing_ok=True)  # of an earlier release
    for path in forgotten(at):
        shutil.rmtree(path.parent, ignore_errors=True)
    at.own.mkdir(parents=True, exist_ok=True)
    for path in (at.result, at.cancelled):
        path.unlink(missing_ok=True)
    at.log.write_text("")
    write_json(at.request, request)


@contextmanager
def turn(at: Settings, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the workspace for a request, once those that came before it have ended.

    Args:
        at: the settings, with the request.
        say: told what is waited for, whenever that changes.

    Raises:
        RunnerError: there is no such request, or it is served already.
    """
    if not at.request.exists():
        raise RunnerError(f"Request {at.asked} is not in {at.workspace}: ask again.")
    told = ""
    with at.request.open() as mine, (at.workspace / "lock").open("a+") as lock:
        deadline = time.monotonic() + PATIENCE  # somebody may look whether this is alive
        while not try_lock(mine):
            if time.monotonic() > deadline:
                raise RunnerError(f"Request {at.asked} is served already: follow that run.")
            time.sleep(PATIENCE / 20)
        (at.own / "pid").write_text(str(os.getpid()))
        if at.cancelled.exists():
            raise TimeLimitError(CANCELLED)
        # one that waits here keeps nobody from looking into the workspace
        while (before := ahead(at)) or is_queue_held(at) or not try_lock(lock):
            began = read_json(at.running).get("began", "earlier")
            others = f", and {len(before) - 1} more that came before" if len(before) > 1 else ""
            line = f"Waiting for the run that began at {began}{others}: then it is this one's turn."
            if is_queue_held(at):
                line = HELD
            if line != told:
                say(line)
                told = line
            time.sleep(PATIENCE / 4)
        # DVC inherits it: where this process is killed, its DVC still works in the workspace
        os.set_inheritable(lock.fileno(), True)
        note_began(at)
        yield


def note_began(at: Settings) -> None:
    """Note what the workspace is held for from now on."""
    began = {"asked": at.asked, "since": int(time.time() * 1000)}
    write_json(at.running, {**began, "began": time.strftime("%H:%M:%S UTC", time.gmtime())})


@contextmanager
def cancellable() -> Iterator[None]:
    """Let `cancel` end what this process started; raises TimeLimitError then, once."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is left to do is to clean up
        stop_children()
        raise TimeLimitError(CANCELLED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def cancel(at: Settings) -> dict[str, Any]:
    """Have a request that waits, or runs, end; returns what it was doing.

    Raises:
        RunnerError: there is no such request, or it has ended.
    """
    if not at.request.exists() or at.result.exists():
        ended = "has ended already" if at.result.exists() else f"is not in {at.workspace}"
        raise RunnerError(f"Request {at.asked} {ended}: there is nothing to cancel.")
    served = read_json(at.running).get("asked") == at.asked
    at.cancelled.touch()  # one whose process is not there yet ends as soon as it comes
    alive = is_alive(at.request)
    if alive:
        with suppress(ProcessLookupError, FileNotFoundError, ValueError):
            os.kill(int((at.own / "pid").read_text()), signal.SIGTERM)
    return {"cancelled": at.asked, "was": "running" if alive and served else "waiting"}


def cancel_all(at: Settings) -> list[dict[str, Any]]:
    """Have every request that waits, or runs, end; returns what each was doing, the last first.

    So none of them begins because one before it has ended.
    """
    ended = []
    for path in sorted(filter(is_open, unanswered(at)), key=came, reverse=True):
        with suppress(RunnerError):  # it ended meanwhile
            ended.append(cancel(replace(at, asked=path.parent.name)))
    return ended


def is_open(request: Path) -> bool:
    """Tell whether a request without a result is served, or will be."""
    return is_alive(request) or bool(read_json(request))


def is_alive(request: Path) -> bool:
    """Tell whether a process waits for a request's turn, or serves it."""
    return is_held(request)


def unanswered(at: Settings) -> list[Path]:
    """List the other requests that have no result yet."""
    return [
        path
        for path in at.requests.glob("*/request.json")
        if path != at.request and not (path.parent / "result.json").exists()
    ]


def ahead(at: Settings) -> list[Path]:
    """List the requests that came before this one, and that somebody waits for."""
    return [path for path in unanswered(at) if came(path) < came(at.request) and is_alive(path)]


def pending(at: Settings) -> list[dict[str, Any]]:
    """Return the other requests that are still to be served, or are about to be started."""
    now = time.time()
    return [
        read_json(path)
        for path in unanswered(at)
        if is_alive(path) or now - came(path) / 1e9 < STALE_SECONDS
    ]


def left_over(at: Settings) -> list[str]:
    """List the ids of requests that nobody serves though they have no result, as they came."""
    dead = [path for path in unanswered(at) if not is_alive(path) and read_json(path)]
    return [path.parent.name for path in sorted(dead, key=came)]


def forgotten(at: Settings) -> list[Path]:
    """List the requests that nobody asks about any more: ended ones, and dead ones much later."""
    dead = [path for path in at.requests.glob("*/request.json") if not is_alive(path)]
    ended = [path for path in dead if (path.parent / "result.json").exists()]
    lost = [path for path in dead if path not in ended]
    ended.sort(key=lambda path: came(path.parent), reverse=True)
    old = [path for path in ended[:KEPT] if age(path) > STALE_SECONDS]
    return [*old, *ended[KEPT:], *(path for path in lost if age(path) > LOST_SECONDS)]


def age(path: Path) -> float:
    """Return the seconds since something last came into a request's directory."""
    return time.time() - came(path.parent) / 1e9


def came(path: Path) -> int:
    """Return when a request came, or something last came into a directory, in nanoseconds.

    It is 0 where the path is gone.
    """
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
