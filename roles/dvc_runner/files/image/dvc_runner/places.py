"""How many runs go on at once on a platform: those of all its projects wait in one queue."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dvc_runner.lock import PATIENCE, try_lock
from dvc_runner.settings import Settings


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
            while (before := ahead(ticket)) >= at.at_once:
                line = (
                    f"Waiting for a place: {at.at_once} at once on this platform "
                    f"(dvc_runner_at_once), and {before - at.at_once} wait before this one."
                )
                if line != told:
                    say(line)
                    told = line
                time.sleep(PATIENCE / 4)
            yield
        finally:
            ticket.unlink(missing_ok=True)


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
