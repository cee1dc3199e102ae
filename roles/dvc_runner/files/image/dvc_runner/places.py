"""How many runs go on at once on a platform: those of all its projects wait in one queue.

The queue can be held: what is in work goes on, and nothing else begins.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dvc_runner.lock import PATIENCE, is_held, try_lock
from dvc_runner.settings import Settings
from dvc_runner.state import read_json, write_json

HELD = (
    "Waiting: the platform gets other passwords (make rotate), and what waits begins when it has "
    "them."
)


@contextmanager
def place(at: Settings, say: Callable[[str], None]) -> Iterator[None]:
    """Hold one of the platform's places, once a run that came before has left one.

    A ticket is a file in a directory that all runners share, locked by the one who waits or runs:
    whoever is killed has left the queue. Names sort as they came.

    Args:
        at: the settings, with the directory and the number of places; without one nobody waits.
        say: told how many are before this one, whenever that changes.
    """
    if at.queue is None:
        yield
        return
    at.queue.mkdir(parents=True, exist_ok=True)
    part = at.queue / f".{at.name}-{os.getpid()}"
    with part.open("w") as mine:
        try_lock(mine)  # before anybody sees it
        ticket = part.rename(at.queue / f"{time.time_ns():020d}-{at.name}")
        # DVC inherits it: where this process is killed, its DVC still takes the place
        os.set_inheritable(mine.fileno(), True)
        told = ""
        try:
            while line := why_waiting(at, ticket) or begin(at, mine):
                if line != told:
                    say(line)
                    told = line
                time.sleep(PATIENCE / 4)
            yield
        finally:
            ticket.unlink(missing_ok=True)


def why_waiting(at: Settings, ticket: Path) -> str:
    """Say why a ticket has no place yet, or return an empty string."""
    if is_queue_held(at):
        return HELD
    before = ahead(ticket)
    if before < at.at_once:
        return ""
    return (
        f"Waiting for a place: {at.at_once} at once on this platform "
        f"(dvc_runner_at_once), and {before - at.at_once} wait before this one."
    )


def begin(at: Settings, mine: IO[str]) -> str:
    """Note in a ticket that its run is in work; says why not, where the queue is held by now.

    Whoever holds it looks afterwards for who is in work: one of the two sees the other.
    """
    began = time.strftime("%H:%M:%S UTC", time.gmtime())
    mine.write(json.dumps({"project": at.name, "asked": at.asked, "began": began}))
    mine.flush()
    if not is_queue_held(at):
        return ""
    mine.seek(0)
    mine.truncate()
    return HELD


def hold(at: Settings, seconds: int, by: str) -> dict[str, Any]:
    """Have no run begin for so long, unless another holds the queue already.

    It ends by itself, so that a queue stays held by nobody who was killed. Of two that begin at
    once each asks again before it goes on, and one of them sees the other.

    Returns:
        Who holds the queue now (`by`), `until` when, and the runs that are in work.
    """
    if at.queue is None:
        return {"by": by, "until": 0.0, "in_work": []}
    at.queue.mkdir(parents=True, exist_ok=True)
    if holder(at).get("by", by) == by:
        write_json(at.queue / "held", {"by": by, "until": time.time() + seconds})
    tickets = sorted(at.queue.glob("[0-9]*"))
    told = [read_json(path) for path in tickets if is_held(path)]
    return {"by": by, "until": 0.0, **holder(at), "in_work": [one for one in told if one]}


def release(at: Settings, by: str) -> dict[str, Any]:
    """Let runs begin again, if it is this one who keeps them from it; returns whether it was."""
    was = holder(at).get("by") == by
    if at.queue is not None and was:
        (at.queue / "held").unlink(missing_ok=True)
    return {"held": was}


def holder(at: Settings) -> dict[str, Any]:
    """Return who holds the queue (`by`), and `until` when; empty where it goes on."""
    held = read_json(at.queue / "held") if at.queue else {}
    return held if held.get("until", 0) > time.time() else {}


def is_queue_held(at: Settings) -> bool:
    """Tell whether no run may begin."""
    return bool(holder(at))


def ahead(ticket: Path) -> int:
    """Count the tickets before this one whose holders live; those of the dead are removed."""
    count = 0
    for path in sorted(ticket.parent.glob("[0-9]*")):
        if path.name >= ticket.name:
            break
        with contextlib.suppress(FileNotFoundError), path.open() as other:
            if try_lock(other):
                # who only looks may not be able to write there
                with contextlib.suppress(OSError):
                    path.unlink()
            else:
                count += 1
    return count
